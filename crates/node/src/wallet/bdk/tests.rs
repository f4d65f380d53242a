//! Properties of the wallet on BDK alone. `wallet/tests` has those of every wallet.
#![allow(clippy::unwrap_used)]

use bitcoin::Network;
use longhand_proto::Code;

use super::*;
use crate::wallet::tests::{Account, FEERATE, World, account, foreign, payment};
use crate::wallet::{SendAmount, WalletChain, WalletCoins, WalletSpends};

/// The wallet that `world` has stored.
fn stored(world: &World) -> BdkWallet {
    BdkWallet::load(&world.setup(), world.stored()).unwrap()
}

#[test]
fn a_block_without_transactions_of_the_wallet_is_not_recorded() {
    let mut world = World::new("wpkh");
    world.mine(&[&payment(&foreign(), 50_000, 1)]);
    let wallet = stored(&world);
    assert_eq!(wallet.bdk.checkpoints().count(), 1, "only genesis");
    assert_eq!(wallet.best_block().height, 1);
}

#[test]
fn a_reservation_ends_when_the_transaction_is_mined() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let tx = world.send(SendAmount::All);
    world.mine(&[]);
    assert_eq!(stored(&world).bdk.list_locked_outpoints().count(), 1);
    world.mine(&[&tx]);
    assert_eq!(stored(&world).bdk.list_locked_outpoints().count(), 0);
}

#[test]
fn scripts_are_derived_up_to_the_gap_limit() {
    let mut wallet = stored(&World::new("wpkh"));
    let scripts = wallet.take_new_watches().scripts;
    assert_eq!(scripts.len(), 2 * LOOKAHEAD as usize);
}

#[test]
fn one_record_of_the_whole_wallet_replaces_all_and_later_ones_follow() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let mut wallet = stored(&world);
    wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();

    let whole = vec![("0000".to_owned(), wallet.compacted())];
    let mut again = BdkWallet::load(&world.setup(), whole.clone()).unwrap();
    assert_eq!(again.balance(), wallet.balance());
    assert!(again.confirmed_utxos().is_empty(), "it is reserved");
    assert_eq!(again.take_changes(), [], "loading changes nothing");

    let address = again.new_address();
    let changes = again.take_changes();
    let [longhand_store::Write::Put(key, value)] = &changes[..] else {
        panic!("not one record: {changes:?}")
    };
    let both = [whole, vec![(key.clone(), value.clone())]].concat();
    let mut later = BdkWallet::load(&world.setup(), both).unwrap();
    assert_eq!(later.new_address().2, address.2 + 1);
}

#[test]
fn records_that_are_damaged_newer_or_without_a_beginning_are_refused() {
    let world = World::new("wpkh");
    let refused = |record: &[u8]| {
        let records = vec![("0000".to_owned(), record.to_vec())];
        let loaded = BdkWallet::load(&world.setup(), records);
        matches!(loaded, Err(WalletError::Stored(_)))
    };
    assert!(refused(b"{"));
    assert!(refused(br#"{"version":2}"#));
    assert!(refused(br#"{"version":1}"#));
    assert!(!refused(&world.records["0000"]));
}

#[test]
fn only_ranged_single_key_descriptors_make_a_wallet() {
    let Account {
        watch: [external, internal],
        ..
    } = account("wpkh", 7);
    let code = |external: String| {
        let setup = WalletSetup {
            external: external.into(),
            internal: internal.clone().into(),
            network: Network::Regtest,
            ..World::new("wpkh").setup()
        };
        BdkWallet::create(&setup).map(|_| ()).map_err(|e| e.code())
    };
    let bad = Err(Code::BadDescriptor);
    assert_eq!(code(external.clone()), Ok(()));
    assert_eq!(code(external.replace("/*", "/5")), bad);
    assert_eq!(code(external.replace("wpkh(", "pkh(")), bad);
    assert_eq!(code(external.replace("/*", "/*'")), bad);
}
