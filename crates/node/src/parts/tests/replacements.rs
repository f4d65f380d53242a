#![allow(clippy::unwrap_used)]

use bitcoin::Network;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::error::Action;
use longhand_proto::command::{
    AbandonTransaction, BumpTransaction, ListSends, SendOnchain, SentOnchain,
};

use super::*;
use crate::machine::testing::{Id, World, world_with_channel};

const PAYEE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// An owner with 1,000,000 sat, whose phone is attached.
fn owner() -> (World, Id) {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.fund(owner, 1_000_000);
    world.attach(owner);
    (world, owner)
}

fn send(world: &mut World, id: Id, amount_sat: u64) -> Result<SentOnchain, Error> {
    let send = SendOnchain {
        id: vec![7; 16],
        address: PAYEE.into(),
        amount_sat,
        all: amount_sat == 0,
        feerate_sat_per_kw: 253,
    };
    sent(world.ask(id, Kind::SendOnchain(send))?)
}

fn sent(reply: Reply) -> Result<SentOnchain, Error> {
    match reply {
        Reply::SentOnchain(sent) => Ok(sent),
        reply => panic!("{reply:?}"),
    }
}

fn bump(world: &mut World, id: Id, txid: &str, rate: u32) -> Result<SentOnchain, Error> {
    let bump = BumpTransaction {
        txid: txid.into(),
        feerate_sat_per_kw: rate,
    };
    sent(world.ask(id, Kind::BumpTransaction(bump))?)
}

fn abandon(world: &mut World, id: Id, txid: &str) -> Result<SentOnchain, Error> {
    if let Some(signer) = &mut world.nodes[id].signer {
        let _ = signer.allow_replacement(&[7; 16], 100_000, true).unwrap();
    }
    let abandon = AbandonTransaction {
        txid: txid.into(),
        feerate_sat_per_kw: 0,
    };
    sent(world.ask(id, Kind::AbandonTransaction(abandon))?)
}

fn only_send(world: &mut World, id: Id) -> command::Send {
    let reply = world.ask(id, Kind::ListSends(ListSends {})).unwrap();
    let Reply::Sends(mut list) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(list.sends.len(), 1, "{list:?}");
    list.sends.remove(0)
}

fn paid_sat(tx: &Transaction) -> Option<u64> {
    let script = address(Network::Regtest, PAYEE).unwrap().script_pubkey();
    let mut outputs = tx.output.iter();
    let output = outputs.find(|output| output.script_pubkey == script)?;
    Some(output.value.to_sat())
}

#[test]
fn a_payment_that_waits_is_replaced_by_one_with_a_higher_fee() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    let second = bump(&mut world, owner, &first.txid, 2_000).unwrap();
    assert_ne!(second.txid, first.txid);
    assert!(second.fee_sat > first.fee_sat);
    let [tx] = &world.mempool[..] else {
        panic!("not one transaction: {:?}", world.mempool);
    };
    assert_eq!(tx.compute_txid().to_string(), second.txid);
    assert_eq!(paid_sat(tx), Some(300_000));
    // Asked again, since the answer was lost.
    assert_eq!(bump(&mut world, owner, &first.txid, 2_000).unwrap(), second);

    let listed = only_send(&mut world, owner);
    assert_eq!(listed.state(), State::Pending);
    assert_eq!(
        (listed.txid, listed.replaced_txids),
        (second.txid.clone(), vec![first.txid])
    );
    world.mine(1);
    let listed = only_send(&mut world, owner);
    assert_eq!(
        (listed.state(), listed.txid),
        (State::Confirmed, second.txid)
    );
}

#[test]
fn the_payee_of_all_gets_less_for_a_higher_fee() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 0).unwrap();
    let second = bump(&mut world, owner, &first.txid, 0).unwrap();
    let paid = paid_sat(&world.mempool[0]).unwrap();
    assert_eq!(paid + second.fee_sat, 1_000_000);
    assert!(second.fee_sat > first.fee_sat);
}

#[test]
fn a_payment_that_was_given_up_comes_back_to_the_wallet() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    let back = abandon(&mut world, owner, &first.txid).unwrap();
    assert_eq!(only_send(&mut world, owner).state(), State::Abandoning);
    assert_eq!(world.mempool.len(), 1);
    assert_eq!(paid_sat(&world.mempool[0]), None);
    world.mine(1);
    assert_eq!(only_send(&mut world, owner).state(), State::Abandoned);
    let (confirmed_sat, _) = world.turn(owner).wallet().balance();
    assert_eq!(confirmed_sat, 1_000_000 - back.fee_sat);
    assert_eq!(abandon(&mut world, owner, &first.txid).unwrap(), back);
    // The same command again is not taken for one that was carried out.
    let again = send(&mut world, owner, 300_000).unwrap_err();
    assert_eq!(
        (again.code.parse(), again.action()),
        (Ok(Code::Abandoned), Action::FixInput)
    );
}

#[test]
fn a_payment_that_was_bumped_is_given_up_by_whichever_of_its_transactions_it_is_named() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    bump(&mut world, owner, &first.txid, 1_000).unwrap();
    let back = abandon(&mut world, owner, &first.txid).unwrap();
    let [tx] = &world.mempool[..] else {
        panic!("not one transaction: {:?}", world.mempool);
    };
    assert_eq!(tx.compute_txid().to_string(), back.txid);
    assert_eq!(paid_sat(tx), None, "nothing is paid any more");
    let again = send(&mut world, owner, 300_000).unwrap_err();
    assert_eq!(again.code, Code::Abandoning);
}

#[test]
fn a_payment_is_not_given_up_when_the_phone_does_not_sign_that() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    let abandon = Kind::AbandonTransaction(AbandonTransaction {
        txid: first.txid.clone(),
        feerate_sat_per_kw: 0,
    });
    let refused = world.ask(owner, abandon).unwrap_err();
    assert_eq!(refused.code, Code::SignerRefused);
    assert_eq!(only_send(&mut world, owner).state(), State::Pending);
    assert_eq!(send(&mut world, owner, 300_000).unwrap(), first);
}

#[test]
fn a_payment_is_not_given_up_while_the_phone_has_yet_to_sign_its_higher_fee() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    world.nodes[owner].signer_hangs = true;
    let bump = Kind::BumpTransaction(BumpTransaction {
        txid: first.txid.clone(),
        feerate_sat_per_kw: 1_000,
    });
    let bumping = world.begin(owner, bump);
    assert!(!world.has_answered(owner, bumping));
    let refused = abandon(&mut world, owner, &first.txid).unwrap_err();
    assert_eq!(refused.code, Code::NotSignedYet);
}

#[test]
fn a_replacement_pays_the_fee_of_the_old_transaction_and_its_own_relay() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    let weight = |world: &World| world.mempool[0].weight().to_wu();
    let back = abandon(&mut world, owner, &first.txid).unwrap();
    let least = first.fee_sat + 250 * weight(&world) / 1_000;
    assert!(
        back.fee_sat >= least,
        "{} sat, {least} are needed",
        back.fee_sat
    );
}

#[test]
fn a_payment_whose_change_was_spent_is_not_replaced() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    let second = Kind::SendOnchain(SendOnchain {
        id: vec![8; 16],
        address: PAYEE.into(),
        amount_sat: 200_000,
        feerate_sat_per_kw: 253,
        ..SendOnchain::default()
    });
    world.ask(owner, second).unwrap();
    let refused = abandon(&mut world, owner, &first.txid).unwrap_err();
    assert_eq!(refused.code, Code::ChangeSpent);
    assert_eq!(world.mempool.len(), 2, "both stand");
}

#[test]
fn a_payment_that_confirms_before_its_replacement_is_signed_is_confirmed() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    world.nodes[owner].signer_hangs = true;
    let bump = BumpTransaction {
        txid: first.txid.clone(),
        feerate_sat_per_kw: 2_000,
    };
    let request = world.begin(owner, Kind::BumpTransaction(bump));
    assert_eq!(only_send(&mut world, owner).state(), State::Pending);
    world.mine(1);
    let answer = world.answer(owner, request).unwrap().unwrap();
    assert_eq!(sent(answer).unwrap().txid, first.txid);
    let listed = only_send(&mut world, owner);
    assert_eq!(
        (listed.state(), listed.txid),
        (State::Confirmed, first.txid)
    );
}

#[test]
fn a_replacement_that_the_phone_refuses_leaves_the_payment_as_it_was() {
    let (mut world, owner) = owner();
    let first = send(&mut world, owner, 300_000).unwrap();
    // Above the limit of the owner's intent.
    let refused = bump(&mut world, owner, &first.txid, 600_000).unwrap_err();
    assert_eq!(refused.code, Code::SignerRefused);
    let listed = only_send(&mut world, owner);
    assert_eq!((listed.state(), listed.txid), (State::Pending, first.txid));
}

#[test]
fn a_payment_that_the_mempool_refuses_is_no_success_and_can_be_bumped() {
    let (mut world, owner) = owner();
    world.refusal = Some("mempool min fee not met".into());
    let refused = send(&mut world, owner, 300_000).unwrap_err();
    assert_eq!(refused.code, Code::RefusedByNetwork);
    assert!(
        refused.message.contains("mempool min fee"),
        "{}",
        refused.message
    );
    let listed = only_send(&mut world, owner);
    assert_eq!(listed.problem, "mempool min fee not met");
    world.reload(owner);
    world.attach(owner);
    world.refusal = None;
    let bumped = bump(&mut world, owner, &listed.txid, 2_000).unwrap();
    assert_eq!(only_send(&mut world, owner).problem, "");
    assert_eq!(world.mempool[0].compute_txid().to_string(), bumped.txid);
}

#[test]
fn the_funding_of_a_channel_gets_a_child_with_a_higher_fee() {
    let (mut world, _, owner) = world_with_channel();
    world.fund(owner, 400_000);
    let parent = send(&mut world, owner, 100_000).unwrap();
    // For the wallet it is a transaction like a funding, once no payment is on record for it.
    let mut sends = OnchainSends::default();
    let txid = parent.txid.parse().unwrap();
    let attempt = sends
        .accelerate(world.turn(owner), txid, 5_000, b"phone")
        .unwrap();
    let child = sends.get(&attempt.id).unwrap();
    let psbt = bitcoin::Psbt::deserialize(&child.psbt).unwrap();
    assert!(
        psbt.unsigned_tx
            .input
            .iter()
            .all(|input| input.previous_output.txid == txid)
    );
    assert_eq!(psbt.unsigned_tx.output.len(), 1);
    let parent_weight = world.mempool[0].weight().to_wu();
    let fees = parent.fee_sat + child.fee_sat;
    let weight = parent_weight + psbt.unsigned_tx.weight().to_wu() + 108;
    let rate = fees * 1_000 / weight;
    assert!((4_800..=5_300).contains(&rate), "{rate}");
    let package = package(world.turn(owner), child, psbt.unsigned_tx.clone());
    assert_eq!(package.len(), 2);
}

#[test]
fn what_is_no_unconfirmed_payment_is_neither_replaced_nor_given_up() {
    let (mut world, owner) = owner();
    let code = |answer: Result<SentOnchain, Error>| answer.unwrap_err().code;
    assert_eq!(code(bump(&mut world, owner, "ff", 0)), Code::TxidMalformed);
    let unknown = "ab".repeat(32);
    assert_eq!(
        code(bump(&mut world, owner, &unknown, 0)),
        Code::NotReplaceable
    );
    let first = send(&mut world, owner, 300_000).unwrap();
    assert_eq!(
        code(bump(&mut world, owner, &first.txid, 249)),
        Code::FeerateOutOfRange
    );
    assert_eq!(
        code(bump(&mut world, owner, &first.txid, 254)),
        Code::FeeTooLow
    );
    assert_eq!(
        code(abandon(&mut world, owner, &unknown)),
        Code::NotAPayment
    );
    world.mine(1);
    assert_eq!(
        code(bump(&mut world, owner, &first.txid, 2_000)),
        Code::NotReplaceable
    );
}
