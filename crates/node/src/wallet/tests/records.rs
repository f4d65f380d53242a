//! Records in the store, and descriptors.

use longhand_proto::Code;

use super::*;

#[test]
fn a_wallet_is_loaded_from_what_it_has_written() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    world.receive(60_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let address = world.wallet.new_address();
    let before = (world.wallet.balance(), world.scripts());
    let free = world.wallet.confirmed_utxos();

    world.reload();
    assert_eq!((world.wallet.balance(), world.scripts()), before);
    assert_eq!(
        world.wallet.confirmed_utxos(),
        free,
        "reservations outlive a restart"
    );
    assert_eq!(world.wallet.best_block(), world.at(2));
    assert!(!world.wallet.has_changes(), "loading changes nothing");
    assert_eq!(world.wallet.new_address().2, address.2 + 1);

    world.wallet.release(&psbt.unsigned_tx);
    assert_eq!(world.wallet.confirmed_utxos().len(), 2);
}

#[test]
fn records_do_not_grow_without_bound_and_lose_nothing() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let before = (world.wallet.balance(), world.scripts());
    for _ in 0..4 {
        for _ in 0..75 {
            world.mine(&[]);
            assert!(world.records.len() <= 100, "{}", world.records.len());
        }
        let loaded = world.loaded();
        assert_eq!(loaded.best_block(), world.wallet.best_block());
        assert!(loaded.confirmed_utxos().is_empty(), "it is reserved");
    }
    world.reload();
    assert_eq!((world.wallet.balance(), world.scripts()), before);
    world.wallet.release(&psbt.unsigned_tx);
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
}

#[test]
fn nothing_is_written_when_nothing_has_changed() {
    let mut world = World::new("wpkh");
    world.wallet.balance();
    world.scripts();
    assert!(!world.wallet.has_changes());
    assert_eq!(world.commit(), 0);

    world.receive(50_000);
    world.wallet.new_address();
    assert!(world.wallet.has_changes());
    assert_ne!(world.commit(), 0);
    assert!(!world.wallet.has_changes());
}

#[test]
fn records_of_another_wallet_are_refused() {
    let world = World::new("wpkh");
    let load = |records| {
        let loaded = WALLETS.load(&world.setup(), records);
        loaded.map(|_| ()).map_err(|e| e.code())
    };
    let other = World::of(account("wpkh", 8), false);
    assert_eq!(load(other.stored()), Err(Code::WalletUnreadable));
    assert_eq!(load(world.stored()), Ok(()));
}

#[test]
fn two_equal_or_unreadable_descriptors_are_refused() {
    let Account {
        watch: [external, internal],
        ..
    } = account("wpkh", 7);
    let code = |external: &str, internal: &str, network| {
        let setup = WalletSetup {
            network,
            ..setup(&[external.to_owned(), internal.to_owned()])
        };
        WALLETS
            .load(&setup, Vec::new())
            .map(|_| ())
            .map_err(|e| e.code())
    };
    let bad = Err(Code::BadDescriptor);
    assert_eq!(code(&external, &internal, Network::Regtest), Ok(()));
    assert_eq!(code(&external, &internal, Network::Bitcoin), bad);
    assert_eq!(code(&external, &external, Network::Regtest), bad);
    assert_eq!(code("", &internal, Network::Regtest), bad);
    let checksum = format!("{external}#aaaaaaaa");
    assert_eq!(code(&checksum, &internal, Network::Regtest), bad);
}
