//! Building transactions and reserving inputs.

use longhand_proto::Code;

use super::*;

#[test]
fn reserved_inputs_are_not_spent_twice_and_can_be_given_back() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    world.receive(50_000);
    let first = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap()
        .unsigned_tx;
    let second = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap()
        .unsigned_tx;
    assert_ne!(
        first.input[0].previous_output,
        second.input[0].previous_output
    );
    assert!(world.wallet.confirmed_utxos().is_empty());
    assert_eq!(
        world.wallet.balance(),
        (100_000, 0),
        "reserved is not spent"
    );
    let refused = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap_err();
    let available_sat = 0;
    assert_eq!(
        refused,
        WalletError::InsufficientFunds {
            needed_sat: 40_001,
            available_sat
        }
    );

    world.wallet.release(&first);
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
}

#[test]
fn a_funding_transaction_pays_exactly_and_cannot_be_replaced_or_mined_early() {
    let mut world = World::new("wpkh");
    world.receive(500_000);
    let psbt = world.wallet.fund(foreign(), 100_000, 1_000, 0).unwrap();
    let tx = world.wallet.finalize(&world.sign(&psbt), &psbt).unwrap();
    let paid: Vec<_> = tx
        .output
        .iter()
        .filter(|output| output.script_pubkey == foreign())
        .collect();
    assert_eq!(paid.len(), 1);
    assert_eq!(paid[0].value, Amount::from_sat(100_000));
    assert_eq!(tx.lock_time, LockTime::from_height(1).unwrap());
    assert!(
        tx.input
            .iter()
            .all(|input| input.sequence == Sequence::ENABLE_LOCKTIME_NO_RBF)
    );
    let least_sat = tx.weight().to_wu();
    let fee_sat = fee_sat(&tx, 500_000);
    assert!(
        (least_sat..least_sat + 10).contains(&fee_sat),
        "{fee_sat} for {least_sat} wu"
    );
}

#[test]
fn the_amount_to_keep_stays_in_the_wallet() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let refused = world
        .wallet
        .fund(foreign(), 80_000, FEERATE, 20_000)
        .unwrap_err();
    assert_eq!(refused.code(), Code::InsufficientFunds);
    let refused = world
        .wallet
        .fund(foreign(), 80_000, FEERATE, 19_990)
        .unwrap_err();
    let WalletError::InsufficientFunds {
        needed_sat,
        available_sat,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(available_sat, 100_000);
    assert!(needed_sat > 100_000, "{needed_sat}");
    assert_eq!(
        world.wallet.confirmed_utxos().len(),
        1,
        "a refusal reserves nothing"
    );
    let change = world.change_script();
    assert_eq!(
        world.wallet.path_of(&change),
        Some((1, 0)),
        "and uses no script"
    );

    let psbt = world
        .wallet
        .send(foreign(), SendAmount::All, FEERATE, 20_000)
        .unwrap();
    let kept: Vec<_> = psbt
        .unsigned_tx
        .output
        .iter()
        .filter(|output| world.wallet.path_of(&output.script_pubkey) == Some((1, 0)))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].value, Amount::from_sat(20_000));
    assert_eq!(psbt.unsigned_tx.output.len(), 2);
}

#[test]
fn all_leaves_nothing() {
    let mut world = World::new("tr");
    world.receive(100_000);
    world.receive(1_000);
    let tx = world.send(SendAmount::All);
    assert_eq!((tx.input.len(), tx.output.len()), (2, 1));
    world.mine(&[&tx]);
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn amounts_and_fee_rates_that_cannot_be_are_refused_and_nothing_is_reserved() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let mut code = |amount, feerate, keep| {
        world
            .wallet
            .send(foreign(), amount, feerate, keep)
            .unwrap_err()
            .code()
    };
    use SendAmount::{All, Exact};
    assert_eq!(code(Exact(0), FEERATE, 0), Code::AmountDust);
    assert_eq!(code(Exact(329), FEERATE, 0), Code::AmountDust);
    assert_eq!(code(Exact(100_000), FEERATE, 0), Code::InsufficientFunds);
    assert_eq!(code(Exact(99_990), FEERATE, 0), Code::InsufficientFunds);
    assert_eq!(
        code(Exact(u64::MAX), FEERATE, u64::MAX),
        Code::InsufficientFunds
    );
    assert_eq!(code(All, FEERATE, u64::MAX), Code::InsufficientFunds);
    assert_eq!(code(All, FEERATE, 99_900), Code::InsufficientFunds);
    assert_eq!(code(All, 600_000, 0), Code::InsufficientFunds);
    assert_eq!(code(Exact(1_000), 0, 0), Code::FeerateOutOfRange);
    assert_eq!(code(Exact(1_000), u32::MAX, 0), Code::FeerateOutOfRange);
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    let mut empty = World::new("wpkh");
    let refused = empty.wallet.send(foreign(), All, FEERATE, 0).unwrap_err();
    assert_eq!(
        refused,
        WalletError::InsufficientFunds {
            needed_sat: 1,
            available_sat: 0
        }
    );
}

#[test]
fn coins_that_are_worth_less_than_their_fee_stay() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    world.receive(2_000);
    let spend_all = |world: &mut World, feerate| {
        let psbt = world
            .wallet
            .send(foreign(), SendAmount::All, feerate, 0)
            .unwrap();
        world.wallet.release(&psbt.unsigned_tx);
        psbt.inputs.len()
    };
    assert_eq!(spend_all(&mut world, FEERATE), 2);
    assert_eq!(spend_all(&mut world, 10_000), 1);
}

#[test]
fn a_transaction_that_would_be_too_heavy_to_pass_on_is_refused() {
    let mut world = World::new("wpkh");
    let script = world.wallet.new_address().0.script_pubkey();
    let output = TxOut {
        value: Amount::from_sat(1_000),
        script_pubkey: script,
    };
    let payments: Vec<Transaction> = (0..75u8)
        .map(|salt| {
            let origin = [OutPoint::new(Txid::from_byte_array([salt; 32]), 0)];
            transaction(&origin, vec![output.clone(); 20])
        })
        .collect();
    world.mine(&payments.iter().collect::<Vec<_>>());
    let sent = world
        .wallet
        .send(foreign(), SendAmount::All, FEERATE, 0)
        .map(|_| ());
    assert_eq!(sent, Err(WalletError::TooManyInputs { inputs: 1_500 }));
    assert_eq!(
        world.wallet.confirmed_utxos().len(),
        1_500,
        "nothing is reserved"
    );
}

#[test]
fn own_change_can_be_spent_at_once_but_not_what_others_may_take_back() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let script = world.wallet.new_address().0.script_pubkey();
    world.broadcast(payment(&script, 70_000, 9), 1);
    assert_eq!(world.wallet.balance(), (100_000, 70_000));
    let tx = world.send(SendAmount::Exact(10_000));
    world.broadcast(tx, 2);

    let refused = world
        .wallet
        .fund(foreign(), 95_000, FEERATE, 0)
        .unwrap_err();
    assert_eq!(refused.code(), Code::InsufficientFunds);
    world.wallet.fund(foreign(), 80_000, FEERATE, 0).unwrap();
}

#[test]
fn own_transactions_wait_for_a_block_parents_first() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let own_script = world.change_script();
    let spend = |wallet: &mut dyn OnchainWallet, amount_sat| {
        wallet
            .send(
                own_script.clone(),
                SendAmount::Exact(amount_sat),
                FEERATE,
                0,
            )
            .unwrap()
    };
    let psbt = spend(&mut *world.wallet, 40_000);
    let parent = world.wallet.finalize(&world.sign(&psbt), &psbt).unwrap();
    world.broadcast(parent.clone(), 100);
    let psbt = spend(&mut *world.wallet, 30_000);
    let child = world.wallet.finalize(&world.sign(&psbt), &psbt).unwrap();
    world.broadcast(child.clone(), 100);

    world.reload();
    assert_eq!(
        world.wallet.waiting_own(),
        vec![parent.clone(), child.clone()]
    );
    world.mine(&[&parent]);
    assert_eq!(world.wallet.waiting_own(), vec![child.clone()]);
    world.mine(&[&child]);
    assert!(world.wallet.waiting_own().is_empty());
}

/// The fee bump of a commitment that is in a block without it still spends the wallet's coin (`longhand-sim --scenario
/// force-close-by-phone --seed 1 --at chain:1:reorg1:now`).
#[test]
fn a_fee_bump_of_a_close_is_sent_again_too() {
    let mut world = World::new("wpkh");
    let own = OutPoint::new(world.receive(50_000).compute_txid(), 0);
    let anchor = OutPoint {
        txid: Txid::from_byte_array([7; 32]),
        vout: 0,
    };
    let change = TxOut {
        value: Amount::from_sat(49_000),
        script_pubkey: world.change_script(),
    };
    let bump = transaction(&[anchor, own], vec![change]);
    world.broadcast(bump.clone(), 100);
    assert_eq!(world.wallet.waiting_own(), vec![bump]);
}

/// A process may end after it has stored a sweep as sent and before it has sent it (`--at store:66:after`).
#[test]
fn a_sweep_is_sent_again_too() {
    let mut world = World::new("wpkh");
    let delayed = OutPoint {
        txid: Txid::from_byte_array([8; 32]),
        vout: 1,
    };
    let swept = TxOut {
        value: Amount::from_sat(49_000),
        script_pubkey: world.change_script(),
    };
    let sweep = transaction(&[delayed], vec![swept]);
    world.broadcast(sweep.clone(), 100);
    world.reload();
    assert_eq!(world.wallet.waiting_own(), vec![sweep.clone()]);
    world.mine(&[&sweep]);
    assert!(world.wallet.waiting_own().is_empty());
}
