//! A phone's registration, and the node that is built on it.

use bitcoin::Network;
use longhand_host::fuzzing::check_registration;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::{Command, NewAddress, Register};
use prost::Message;

use crate::node;

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(registration) = Register::decode(data) else {
        return;
    };
    match check_registration(&registration, Network::Regtest) {
        Err(why) => assert!(!why.is_empty() && !why.contains('\n'), "{why}"),
        Ok(()) => node::run(|| async {
            let node = node::owner(registration).await;
            let node = node.expect("an accepted registration makes a node");
            let new_address = Kind::NewAddress(NewAddress {});
            let command = Command {
                command: Some(new_address),
            };
            assert!(node.command(command).await.reply.is_some());
            node::is_sound(&node).await;
            node.stop().await;
        }),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let good = node::registration();
    let bip86 = {
        let signer = longhand_signer::Signer::new(
            &crate::audited::seed(),
            Network::Regtest,
            &longhand_testkit::phone::LEDGER_KEY,
        );
        let keys = signer.unwrap();
        let descriptor = |keychain| {
            let keys = keys.keys();
            let account = longhand_signer::Account::Bip86;
            keys.descriptor(account, keychain).to_owned()
        };
        Register {
            external_descriptor: descriptor(longhand_signer::Keychain::External),
            internal_descriptor: descriptor(longhand_signer::Keychain::Internal),
            ..good.clone()
        }
    };
    let another_network = Register {
        network: "signet".into(),
        ..good.clone()
    };
    let swapped = Register {
        external_descriptor: good.internal_descriptor.clone(),
        internal_descriptor: good.external_descriptor.clone(),
        birthday_height: 7,
        ..good.clone()
    };
    [good, bip86, another_network, swapped]
        .iter()
        .map(Message::encode_to_vec)
        .collect()
}
