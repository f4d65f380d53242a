//! Blocks, reorganisations, broadcasts, and outpoints to watch.

use longhand_proto::Code;

use super::*;

#[test]
fn a_payment_counts_when_it_is_confirmed_and_no_longer_when_it_is_spent() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    assert_eq!(world.wallet.balance(), (100_000, 0));
    assert_eq!(world.wallet.best_block(), world.at(1));

    let tx = world.send(SendAmount::Exact(30_000));
    world.broadcast(tx.clone(), 1_700_000_000);
    let change_sat = 70_000 - fee_sat(&tx, 100_000);
    assert_eq!(world.wallet.balance(), (0, change_sat));

    world.mine(&[&tx]);
    assert_eq!(world.wallet.balance(), (change_sat, 0));
    assert_eq!(world.wallet.transaction(tx.compute_txid()), Some(tx));
}

#[test]
fn a_spend_in_the_block_of_its_payment_is_seen() {
    let mut world = World::new("wpkh");
    let script = world.wallet.new_address().0.script_pubkey();
    let paid = payment(&script, 50_000, 1);
    let spent = transaction(
        &[OutPoint::new(paid.compute_txid(), 0)],
        vec![TxOut {
            value: Amount::from_sat(49_000),
            script_pubkey: foreign(),
        }],
    );
    world.mine(&[&paid, &spent]);
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn transactions_that_do_not_concern_the_wallet_are_not_kept() {
    let mut world = World::new("wpkh");
    let foreign = payment(&foreign(), 50_000, 1);
    world.mine(&[&foreign]);
    assert_eq!(world.wallet.transaction(foreign.compute_txid()), None);
    assert_eq!(world.wallet.best_block(), world.at(1));
}

#[test]
fn a_coinbase_is_pending_until_it_is_mature() {
    let mut world = World::new("wpkh");
    let script = world.wallet.new_address().0.script_pubkey();
    let output = TxOut {
        value: Amount::from_sat(50_000),
        script_pubkey: script,
    };
    world.mine(&[&transaction(&[OutPoint::null()], vec![output])]);
    for _ in 0..98 {
        world.mine(&[]);
    }
    assert_eq!(world.wallet.balance(), (0, 50_000));
    assert!(world.wallet.confirmed_utxos().is_empty());
    world.mine(&[]);
    assert_eq!(world.wallet.balance(), (50_000, 0));
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
}

#[test]
fn a_missing_block_is_refused_and_a_known_one_ignored() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let known = world.chain[1];
    world.wallet.connect_block(1, &known, &[]).unwrap();
    assert_eq!(world.wallet.balance(), (50_000, 0));

    let gap = header(BlockHash::all_zeros(), 3, 0);
    let refused = world.wallet.connect_block(3, &gap, &[]).unwrap_err();
    assert_eq!(refused, WalletError::OutOfOrder { height: 3, tip: 1 });
    assert_eq!(refused.code(), Code::BlockOutOfOrder);
    let stranger = header(BlockHash::all_zeros(), 2, 0);
    assert!(world.wallet.connect_block(2, &stranger, &[]).is_err());
    assert_eq!(world.wallet.best_block(), world.at(1));
}

#[test]
fn a_reorganised_payment_waits_and_is_confirmed_again() {
    let mut world = World::new("wpkh");
    world.receive(20_000);
    let tx = world.receive(50_000);
    world.mine(&[]);
    world.reorg_to(1);
    assert_eq!(world.wallet.best_block(), world.at(1));
    assert_eq!(world.wallet.balance(), (20_000, 50_000));

    world.mine_with_nonce(&[], 1);
    world.mine_with_nonce(&[&tx], 1);
    assert_eq!(world.wallet.balance(), (70_000, 0));

    world.reload();
    assert_eq!(world.wallet.best_block(), world.at(3));
    assert_eq!(world.wallet.balance(), (70_000, 0));
}

#[test]
fn a_reorganisation_that_was_missed_is_seen_when_the_new_blocks_come() {
    let mut world = World::new("wpkh");
    world.mine(&[]);
    let tx = world.receive(50_000);
    world.chain.truncate(1);
    world.mine_with_nonce(&[], 1);
    assert_eq!(world.wallet.balance(), (0, 50_000));
    world.mine_with_nonce(&[&tx], 1);
    assert_eq!(world.wallet.balance(), (50_000, 0));
}

#[test]
fn reorganisations_before_and_after_a_reload_leave_a_chain_that_grows_on() {
    let mut world = World::new("wpkh");
    for _ in 0..6 {
        world.receive(10_000);
    }
    world.reorg_to(4);
    world.reload();
    world.reorg_to(2);
    world.reload();
    world.mine_with_nonce(&[], 1);
    let script = world.wallet.new_address().0.script_pubkey();
    world.mine_with_nonce(&[&payment(&script, 5_000, 99)], 1);
    world.reload();
    assert_eq!(world.wallet.best_block(), world.at(4));
    assert_eq!(world.wallet.balance(), (25_000, 40_000));
}

#[test]
fn scripts_and_outpoints_to_watch_are_returned_once() {
    let mut world = World::new("wpkh");
    let first = world.wallet.take_new_watches();
    assert_eq!(first.scripts, world.scripts());
    assert!(first.outpoints.is_empty());
    let none = world.wallet.take_new_watches();
    assert!(none.scripts.is_empty() && none.outpoints.is_empty());

    let tx = world.receive(10_000);
    let news = world.wallet.take_new_watches();
    assert_eq!(
        news.scripts.len(),
        1,
        "one more beyond the one that was paid"
    );
    assert_eq!(news.outpoints, [OutPoint::new(tx.compute_txid(), 0)]);

    world.reload();
    let all = world.wallet.take_new_watches();
    assert_eq!(all.scripts.len(), first.scripts.len() + 1);
    assert_eq!(all.outpoints, [OutPoint::new(tx.compute_txid(), 0)]);
}

#[test]
fn an_output_is_watched_until_its_spend_is_final() {
    let mut world = World::new("wpkh");
    let watched = |world: &World| world.loaded().take_new_watches().outpoints;
    let paid = OutPoint::new(world.receive(10_000).compute_txid(), 0);
    let tx = world.send(SendAmount::All);
    world.broadcast(tx.clone(), 1);
    world.commit();
    assert_eq!(watched(&world), [paid]);
    world.mine(&[&tx]);
    assert_eq!(watched(&world), [paid]);
    for _ in 0..144 {
        world.mine(&[]);
    }
    assert!(watched(&world).is_empty());
}

#[test]
fn a_second_broadcast_of_a_transaction_changes_nothing() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let tx = world.send(SendAmount::Exact(10_000));
    world.broadcast(tx.clone(), 5);
    world.commit();
    world.broadcast(tx, 500);
    assert!(!world.wallet.has_changes());
}

/// A peer has timed out an HTLC on chain, and LDK sends the claim that it had ready (`longhand-sim --scenario
/// deadline-missed --seed 45 --at store:58:before:now --at peer:247:late:20s`).
#[test]
fn a_claim_of_an_htlc_that_a_block_has_spent_never_counts() {
    let mut world = World::new("wpkh");
    let htlc = OutPoint {
        txid: Txid::from_byte_array([7; 32]),
        vout: 2,
    };
    let to = |script_pubkey: ScriptBuf| {
        let value = Amount::from_sat(10_000);
        transaction(
            &[htlc],
            vec![TxOut {
                value,
                script_pubkey,
            }],
        )
    };
    let mut theirs = to(foreign());
    // Signature, no preimage, and a script of the length that BOLT 3 gives it with anchors.
    let witness = [vec![1; 72], vec![], vec![2; 136]];
    theirs.input[0].witness = Witness::from_slice(&witness);
    assert!(!world.wallet.is_spent_in_chain(htlc));
    world.mine(&[&theirs]);
    let own = world.change_script();
    world.broadcast(to(own), 9);
    assert_eq!(world.wallet.balance(), (0, 0));
    assert!(world.wallet.is_spent_in_chain(htlc));
    world.reload();
    assert_eq!(world.wallet.balance(), (0, 0));
    assert!(world.wallet.is_spent_in_chain(htlc));
}

#[test]
fn a_replacement_counts_whatever_the_clock_says() {
    let mut world = World::new("wpkh");
    let paid = OutPoint::new(world.receive(100_000).compute_txid(), 0);
    let change = world.change_script();
    let mut spend = |change_sat: u64, seen: u64| {
        let output = TxOut {
            value: Amount::from_sat(change_sat),
            script_pubkey: change.clone(),
        };
        world.broadcast(transaction(&[paid], vec![output]), seen);
        world.wallet.balance()
    };
    assert_eq!(spend(99_000, 10), (0, 99_000));
    assert_eq!(spend(98_000, 10), (0, 98_000));
    assert_eq!(spend(97_000, 3), (0, 97_000));
}

#[test]
fn a_bump_s_input_is_offered_again_until_it_confirms_or_its_parent_cannot() {
    let mut world = World::new("wpkh");
    let paid = OutPoint::new(world.receive(100_000).compute_txid(), 0);
    let funding = OutPoint::new(Txid::from_byte_array([0xfe; 32]), 0);
    let anchor = TxOut {
        value: Amount::from_sat(330),
        script_pubkey: foreign(),
    };
    let commitment = transaction(&[funding], vec![anchor]);
    let change = world.change_script();
    let output = TxOut {
        value: Amount::from_sat(99_000),
        script_pubkey: change,
    };
    let bump = transaction(
        &[OutPoint::new(commitment.compute_txid(), 0), paid],
        vec![output],
    );
    world.wallet.insert_package(vec![commitment, bump], 1);

    assert_eq!(world.wallet.balance(), (0, 99_000));
    let offered: Vec<_> = world
        .wallet
        .confirmed_utxos()
        .iter()
        .map(|u| u.outpoint)
        .collect();
    assert_eq!(offered, [paid], "LDK may replace the bump");
    let refused = world
        .wallet
        .fund(foreign(), 50_000, FEERATE, 0)
        .unwrap_err();
    assert_eq!(refused.code(), Code::InsufficientFunds, "nothing else may");

    let theirs = transaction(
        &[funding],
        vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: foreign(),
        }],
    );
    world.mine(&[&theirs]);
    assert_eq!(
        world.wallet.balance(),
        (100_000, 0),
        "the peer's commitment undid ours"
    );
}

/// A wallet at the tip of a chain of three blocks, which it got without transactions, and their headers.
fn at_tip() -> World {
    let mut world = World::new("wpkh");
    for _ in 0..3 {
        world.mine(&[]);
    }
    world
}

impl World {
    fn insert(&mut self, height: usize, txs: &[&Transaction]) -> Result<(), WalletError> {
        let txs: Vec<_> = txs
            .iter()
            .enumerate()
            .map(|(i, tx)| (i + 1, Arc::new((*tx).clone())))
            .collect();
        let header = self.chain[height];
        self.wallet.insert_block(height as u32, &header, &txs)
    }
}

#[test]
fn a_block_of_the_past_is_inserted_below_the_tip_and_kept() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    let later = payment(&script, 50_000, 1);
    let earlier = payment(&script, 7_000, 2);
    world.insert(3, &[&later]).unwrap();
    world.insert(1, &[&earlier]).unwrap();
    world.insert(1, &[&earlier]).unwrap();
    assert_eq!(world.wallet.balance(), (57_000, 0));
    assert_eq!(world.wallet.best_block(), world.at(3));
    assert_eq!(world.wallet.first_block(), Some(1));
    world.reload();
    assert_eq!(world.wallet.balance(), (57_000, 0));
    world.mine(&[]);
    let watched = world.wallet.take_new_watches().outpoints;
    assert!(watched.contains(&OutPoint::new(earlier.compute_txid(), 0)));
}

#[test]
fn a_spend_of_the_past_ends_its_coin_in_whatever_order_they_are_inserted() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    let paid = payment(&script, 50_000, 1);
    let outputs = vec![TxOut {
        value: Amount::from_sat(49_000),
        script_pubkey: foreign(),
    }];
    let spent = transaction(&[OutPoint::new(paid.compute_txid(), 0)], outputs);
    world.insert(1, &[&paid, &spent]).unwrap();
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn a_block_above_the_tip_is_not_of_the_past() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    let tx = payment(&script, 50_000, 1);
    let next = header(world.at(3).hash, 4, 0);
    let txs = [(1, Arc::new(tx.clone()))];
    let refused = world.wallet.insert_block(4, &next, &txs).unwrap_err();
    assert_eq!(refused, WalletError::OutOfOrder { height: 4, tip: 3 });
    let other = header(world.at(2).hash, 3, 1);
    assert!(world.wallet.insert_block(3, &other, &txs).is_err());
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn a_block_that_replaces_another_of_the_past_leaves_the_later_ones() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    let [first, second, third] = [1, 2, 3].map(|salt| payment(&script, 10_000, salt));
    world.insert(3, &[&third]).unwrap();
    let stale = header(world.at(0).hash, 1, 1);
    let txs = [(1, Arc::new(first))];
    world.wallet.insert_block(1, &stale, &txs).unwrap();
    assert_eq!(world.wallet.balance(), (20_000, 0));
    world.insert(1, &[&second]).unwrap();
    assert_eq!(world.wallet.balance(), (20_000, 10_000));
    world.reload();
    assert_eq!(world.wallet.balance(), (20_000, 10_000));
}

#[test]
fn a_reorganisation_takes_inserted_blocks_out_too() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    world.insert(2, &[&payment(&script, 50_000, 1)]).unwrap();
    world.reorg_to(1);
    assert_eq!(world.wallet.balance(), (0, 50_000));
}

#[test]
fn held_coins_count_and_are_spent_only_when_they_are_no_longer_held() {
    let mut world = at_tip();
    let script = world.wallet.new_address().0.script_pubkey();
    world.insert(2, &[&payment(&script, 50_000, 1)]).unwrap();
    world.wallet.hold_coins(Some(3));
    world.receive(20_000);
    assert_eq!(world.wallet.balance(), (70_000, 0));
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    let refused = world
        .wallet
        .fund(foreign(), 30_000, FEERATE, 0)
        .unwrap_err();
    assert_eq!(refused.code(), Code::WalletSearching);
    world.wallet.fund(foreign(), 15_000, FEERATE, 0).unwrap();

    world.wallet.hold_coins(None);
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    world.wallet.fund(foreign(), 30_000, FEERATE, 0).unwrap();
}
