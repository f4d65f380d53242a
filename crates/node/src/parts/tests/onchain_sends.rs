#![allow(clippy::unwrap_used)]

use longhand_chain::FeeRates;
use longhand_proto::Code;
use longhand_proto::command::SentOnchain;
use longhand_proto::command::command::Command as Kind;
use longhand_store::Write;

use super::*;
use crate::machine::testing::{Id, World};
use crate::parts::reserve::ANCHOR_RESERVE_SAT;
use crate::parts::testing::open;

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const MAINNET_ADDRESS: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

const SIGNER: &[u8] = b"phone";

fn asked() -> SendOnchain {
    SendOnchain {
        id: vec![1; 16],
        address: ADDRESS.into(),
        amount_sat: 100_000,
        ..SendOnchain::default()
    }
}

/// A hub with a coin of 1,000,000 sat.
fn hub() -> (World, Id) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    world.fund(hub, 1_000_000);
    (world, hub)
}

/// Fails unless the payment is refused with `code`, and nothing is changed.
fn refuses(request: SendOnchain, code: Code) {
    let (mut world, hub) = hub();
    let turn = world.turn(hub);
    turn.journal.take();
    let mut sends = OnchainSends::default();
    let refused = sends.request(turn, request, SIGNER).unwrap_err();
    assert_eq!(refused.code, code, "{}", refused.message);
    assert!(turn.journal.is_empty());
    assert!(sends.sends.is_empty());
}

#[test]
fn a_payment_needs_an_id() {
    let request = SendOnchain {
        id: Vec::new(),
        ..asked()
    };
    refuses(request, Code::BadId);
}

#[test]
fn an_id_of_more_than_32_bytes_is_refused() {
    let request = SendOnchain {
        id: vec![1; 33],
        ..asked()
    };
    refuses(request, Code::BadId);
}

#[test]
fn without_a_fee_estimate_a_payment_needs_a_fee_rate_of_its_owner() {
    let (mut world, hub) = hub();
    let turn = world.turn(hub);
    turn.ldk.fees.set(FeeRates {
        is_estimate: false,
        ..FeeRates::FLOOR
    });
    let mut sends = OnchainSends::default();
    let refused = sends.request(turn, asked(), SIGNER).unwrap_err();
    assert_eq!(refused.code, Code::NoFeeEstimate);
    assert!(sends.sends.is_empty());
    let given = SendOnchain {
        feerate_sat_per_kw: 1_000,
        ..asked()
    };
    assert_eq!(sends.request(turn, given, SIGNER), Ok(asked().id));
}

#[test]
fn a_text_that_is_no_address_is_refused() {
    let request = SendOnchain {
        address: "tea".into(),
        ..asked()
    };
    refuses(request, Code::AddressMalformed);
}

#[test]
fn an_address_of_another_network_is_refused() {
    let request = SendOnchain {
        address: MAINNET_ADDRESS.into(),
        ..asked()
    };
    refuses(request, Code::WrongNetwork);
}

#[test]
fn a_payment_of_nothing_is_refused() {
    let request = SendOnchain {
        amount_sat: 0,
        ..asked()
    };
    refuses(request, Code::AmountZero);
}

#[test]
fn more_than_there_is_in_the_wallet_is_refused() {
    let request = SendOnchain {
        amount_sat: 1_000_001,
        ..asked()
    };
    refuses(request, Code::InsufficientFunds);
}

#[test]
fn an_amount_below_dust_is_refused() {
    let request = SendOnchain {
        amount_sat: 100,
        ..asked()
    };
    refuses(request, Code::AmountDust);
}

#[test]
fn a_fee_rate_that_nobody_would_pay_is_refused() {
    let request = SendOnchain {
        feerate_sat_per_kw: u32::MAX,
        ..asked()
    };
    refuses(request, Code::FeerateOutOfRange);
}

fn send(world: &mut World, id: Id, request: SendOnchain) -> Result<SentOnchain, Error> {
    match world.ask(id, Kind::SendOnchain(request))? {
        Reply::SentOnchain(sent) => Ok(sent),
        other => panic!("not sent: {other:?}"),
    }
}

#[test]
fn a_payment_that_is_asked_for_twice_with_one_id_is_sent_once() {
    let (mut world, hub) = hub();
    let first = send(&mut world, hub, asked()).unwrap();
    let again = send(&mut world, hub, asked()).unwrap();
    assert_eq!(again, first);
    let [tx] = &world.mempool[..] else {
        panic!("one transaction: {:?}", world.mempool);
    };
    assert_eq!(tx.compute_txid().to_string(), first.txid);
    let mut amounts = tx.output.iter().map(|output| output.value.to_sat());
    assert!(amounts.any(|amount_sat| amount_sat == 100_000));
}

#[test]
fn an_owners_payment_is_signed_by_the_phone() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.fund(owner, 1_000_000);
    world.attach(owner);
    let sent = send(&mut world, owner, asked()).unwrap();
    assert_eq!(world.mempool[0].compute_txid().to_string(), sent.txid);
}

#[test]
fn a_payment_that_the_phone_refuses_gives_its_coins_back() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    let other = world.add_owner(3, None);
    world.fund(owner, 1_000_000);
    // A phone with other keys.
    world.nodes[owner].signer = world.nodes[other].signer.take();
    world.attach(owner);
    let refused = send(&mut world, owner, asked()).unwrap_err();
    assert_eq!(refused.code, Code::SignerRefused, "{}", refused.message);
    assert!(world.mempool.is_empty());
    let free = world.turn(owner).wallet().confirmed_utxos();
    assert_eq!(free.len(), 1);
}

#[test]
fn the_whole_balance_leaves_a_reserve_for_closes_while_there_is_a_channel() {
    let (mut world, hub) = hub();
    let owner = world.add_owner(2, Some(hub));
    world.attach(owner);
    open(&mut world, hub, owner, 1, 0, false);
    let all = SendOnchain {
        all: true,
        amount_sat: 0,
        ..asked()
    };
    send(&mut world, hub, all).unwrap();
    let (confirmed_sat, pending_sat) = world.turn(hub).wallet().balance();
    let kept_sat = confirmed_sat + pending_sat;
    assert!(
        (ANCHOR_RESERVE_SAT..ANCHOR_RESERVE_SAT + 1_000).contains(&kept_sat),
        "{kept_sat}"
    );
}

#[test]
fn an_unreadable_record_of_a_payment_stops_the_load() {
    let entries = vec![("send/01".to_owned(), vec![0xff])];
    let loaded = OnchainSends::load(&Journal::loading(entries));
    assert!(matches!(loaded, Err(NodeError::Load(_))));
}

/// The code of the failure of the payment that [`asked`] asks for.
fn failure(turn: &Turn, sends: &OnchainSends) -> String {
    match sends.sent(turn, &asked().id) {
        Some(Err(error)) => error.code,
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn a_payment_of_another_phone_is_not_signed_and_its_coins_are_free_again() {
    let (mut world, hub) = hub();
    let turn = world.turn(hub);
    let mut sends = OnchainSends::default();
    let all = SendOnchain {
        amount_sat: 900_000,
        ..asked()
    };
    sends.request(turn, all.clone(), SIGNER).unwrap();
    sends.fail_of_others(turn, SIGNER);
    assert!(sends.sent(turn, &all.id).is_none(), "it is the same phone");
    let second = SendOnchain {
        id: vec![2; 16],
        ..all
    };
    sends.request(turn, second.clone(), b"another").unwrap_err();
    sends.fail_of_others(turn, b"another");
    assert_eq!(failure(turn, &sends), Code::PairingRenewed);
    sends.request(turn, second, b"another").unwrap();
    sends.advance(turn);
    assert_eq!(failure(turn, &sends), Code::PairingRenewed, "it stays so");
}

#[test]
fn a_payment_that_is_not_signed_for_a_day_expires() {
    let (mut world, hub) = hub();
    let turn = world.turn(hub);
    let mut sends = OnchainSends::default();
    sends.request(turn, asked(), SIGNER).unwrap();
    turn.height += SIGN_WITHIN_BLOCKS + 1;
    sends.advance(turn);
    assert_eq!(failure(turn, &sends), Code::Expired);
    let writes = turn.journal.take().into_iter();
    let records = writes.filter_map(|write| match write {
        Write::Put(key, value) => Some((key, value)),
        Write::Delete(_) => None,
    });
    let loaded = OnchainSends::load(&Journal::loading(records.collect())).unwrap();
    assert_eq!(
        failure(turn, &loaded),
        Code::Expired,
        "also after a restart"
    );
}
