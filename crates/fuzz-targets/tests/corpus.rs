//! Replays the kept inputs of every fuzz target, and its seeds, without a fuzzer: an input that broke a promise once
//! breaks none again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use longhand_fuzz_targets::{TARGETS, Target};

fn corpus(target: &Target) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../../fuzz/corpus").join(target.name)
}

fn is_given_to_libfuzzer(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join(format!("../../fuzz/fuzz_targets/{name}.rs"));
    fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("target!({name},")))
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    for seed in (target.seeds)() {
        (target.run)(&seed);
    }
    let inputs = fs::read_dir(corpus(target)).expect("every target has a corpus");
    for input in inputs {
        let path = input.unwrap().path();
        println!("{}", path.display());
        (target.run)(&fs::read(&path).unwrap());
    }
}

/// One test for each target, so that they run side by side and are named when they fail.
macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(targets, replayed);
            for name in targets {
                assert!(is_given_to_libfuzzer(name), "fuzz/fuzz_targets/{name}.rs");
            }
        }
    };
}

targets! {
    link_handshake
    link_session
    mailbox
    hashmail
    go_back_n
    lnc_handshake
    websocket
    owner_input
    pairing_code
    signer_batch
    signer_channel
    signer_ledger
    phone_ledger
    vault_files
    signer_reply
    command
    command_reply
    peer_socket
    chain_answer
    esplora_answer
    phone_chain
    registration
    operator
    lnd_rpc
    host_config
    devnet_rpc
}
