//! What a wallet is made of, what of it is stored, and the scripts it hands out.

use super::*;

#[test]
fn a_wallet_is_loaded_from_its_changes_or_from_one_compacted_change() {
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
    assert_eq!(world.wallet.take_staged(), None, "loading changes nothing");

    world.journal = vec![world.wallet.compacted()];
    world.mine(&[]);
    world.reload();
    assert_eq!((world.wallet.balance(), world.scripts()), before);
    assert_eq!(world.wallet.best_block(), world.at(3));
    assert_eq!(world.wallet.new_address().2, address.2 + 1);

    world.wallet.release(&psbt.unsigned_tx);
    assert_eq!(world.wallet.confirmed_utxos().len(), 2);
}

#[test]
fn nothing_is_staged_when_nothing_changed() {
    let mut world = World::new("wpkh");
    assert_eq!(world.wallet.take_staged(), None);
    world.wallet.balance();
    world.scripts();
    assert_eq!(world.wallet.take_staged(), None);
}

#[test]
fn changes_that_are_damaged_newer_or_of_other_keys_are_refused() {
    let world = World::new("wpkh");
    let [external, internal] = &world.account.watch;
    let load = |journal| Wallet::load(external, internal, Network::Regtest, journal).map(|_| ());
    let refused = |journal| matches!(load(journal), Err(WalletError::Stored(_)));
    assert!(refused(vec![]));
    assert!(refused(vec![b"{".to_vec()]));
    assert!(refused(vec![br#"{"version":2}"#.to_vec()]));
    assert!(refused(vec![
        World::of(account("wpkh", 8), false).journal[0].clone()
    ]));
    assert!(load(world.journal.clone()).is_ok());
}

#[test]
fn only_ranged_single_key_descriptors_of_the_network_make_a_wallet() {
    let Account {
        watch: [external, internal],
        ..
    } = account("wpkh", 7);
    let birthday = BlockRef {
        height: 0,
        hash: BlockHash::all_zeros(),
    };
    let create = |external: &str, internal: &str, network| {
        Wallet::create(external, internal, network, birthday)
            .map(|_| ())
            .map_err(|e| e.code())
    };
    let bad = Err("BAD_DESCRIPTOR");
    assert_eq!(create(&external, &internal, Network::Regtest), Ok(()));
    assert_eq!(create(&external, &internal, Network::Bitcoin), bad);
    assert_eq!(create(&external, &external, Network::Regtest), bad);
    assert_eq!(create("", &internal, Network::Regtest), bad);
    assert_eq!(
        create(&external.replace("/*", "/5"), &internal, Network::Regtest),
        bad
    );
    assert_eq!(
        create(
            &external.replace("wpkh(", "pkh("),
            &internal,
            Network::Regtest
        ),
        bad
    );
    assert_eq!(
        create(&format!("{external}#aaaaaaaa"), &internal, Network::Regtest),
        bad
    );
    assert_eq!(
        create(&external.replace("/*", "/*'"), &internal, Network::Regtest),
        bad
    );
}

#[test]
fn addresses_are_new_until_the_gap_limit_and_their_paths_are_known() {
    let mut world = World::new("tr");
    let all: Vec<_> = (0..UNUSED_ADDRESSES)
        .map(|_| world.wallet.new_address())
        .collect();
    for (index, (address, keychain, at)) in all.iter().enumerate() {
        assert_eq!((*keychain, *at), (0, index as u32));
        assert_eq!(
            world.wallet.path_of(&address.script_pubkey()),
            Some((0, *at))
        );
    }
    assert_eq!(
        world.wallet.new_address(),
        all[all.len() - 1],
        "no further without a payment"
    );
    world.mine(&[&payment(&all[3].0.script_pubkey(), 1_000, 1)]);
    assert_eq!(world.wallet.new_address().2, UNUSED_ADDRESSES);
    assert_eq!(world.wallet.path_of(&foreign()), None);
}

#[test]
fn change_and_shutdown_scripts_stay_the_same_until_they_are_used() {
    let mut world = World::new("wpkh");
    for keychain in [0, 1] {
        let next = |wallet: &mut Wallet| match keychain {
            0 => wallet.unused_script(),
            _ => wallet.change_script(),
        };
        let first = next(&mut world.wallet);
        assert_eq!((first.1, first.2), (keychain, 0));
        assert_eq!(next(&mut world.wallet), first);
        world.reload();
        assert_eq!(next(&mut world.wallet), first);
        world.mine(&[&payment(&first.0, 1_000, keychain as u8)]);
        assert_eq!(next(&mut world.wallet).2, 1);
    }
}
