#![allow(clippy::unwrap_used)]

use lightning_invoice::Currency;

use super::*;
use crate::machine::input::InvoiceRequest;
use crate::machine::testing::{START_UNIX_S, World};
use crate::parts::invoices;
use crate::parts::testing::{Pair, hash_of, payable, stranger_invoice};

fn request(bolt11: impl Into<String>) -> Pay {
    Pay {
        bolt11: bolt11.into(),
        ..Pay::default()
    }
}

/// A world whose only node is a hub without channels.
fn hub() -> World {
    let mut world = World::new();
    world.add_hub(1);
    world
}

/// Fails unless the payment is refused with `code`, and nothing is changed.
fn refuses(payments: &mut Payments, turn: &Turn, request: &Pay, code: &str) {
    turn.journal.take();
    let before = payments.list();
    let refused = payments.pay(turn, request).unwrap_err();
    assert_eq!(refused.code, code, "{}", refused.message);
    assert!(turn.journal.is_empty());
    assert_eq!(payments.list(), before);
}

#[test]
fn a_text_that_is_no_invoice_is_refused() {
    let mut world = hub();
    let request = request("lnbcrt1tea");
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request,
        "BAD_INVOICE",
    );
}

#[test]
fn an_invoice_of_another_network_is_refused() {
    let mut world = hub();
    let request = request(stranger_invoice(Currency::Bitcoin, Some(1), START_UNIX_S));
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request,
        "WRONG_NETWORK",
    );
}

#[test]
fn an_invoice_of_the_node_itself_is_refused() {
    let mut world = hub();
    let asked = InvoiceRequest {
        amount_msat: 1_000,
        description: String::new(),
        expiry_s: 3600,
    };
    let Ok(Reply::UnsignedInvoice(own)) = invoices::signed_locally(world.turn(0), asked) else {
        panic!("an invoice");
    };
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request(own.hrp),
        "OWN_INVOICE",
    );
}

#[test]
fn a_hash_for_which_the_node_is_paid_is_not_paid_by_it() {
    let mut world = hub();
    let mut payments = Payments::default();
    payments.update(world.turn(0), hash_of(&payable()), false, |_| {});
    refuses(
        &mut payments,
        world.turn(0),
        &request(payable()),
        "OWN_INVOICE",
    );
}

#[test]
fn an_expired_invoice_is_refused() {
    let mut world = hub();
    let request = request(stranger_invoice(
        Currency::Regtest,
        Some(1),
        START_UNIX_S - 7200,
    ));
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request,
        "INVOICE_EXPIRED",
    );
}

#[test]
fn an_invoice_without_an_amount_needs_one() {
    let mut world = hub();
    let request = request(stranger_invoice(Currency::Regtest, None, START_UNIX_S));
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request,
        "AMOUNT_NEEDED",
    );
}

#[test]
fn more_than_the_channels_can_send_is_refused() {
    let mut world = hub();
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request(payable()),
        "INSUFFICIENT_FUNDS",
    );
}

#[test]
fn a_payee_to_whom_there_is_no_route_is_refused() {
    let mut pair = Pair::new();
    let turn = pair.world.turn(pair.hub);
    refuses(
        &mut Payments::default(),
        turn,
        &request(payable()),
        "NO_ROUTE",
    );
}

#[test]
fn a_payment_that_ldk_still_makes_is_not_made_again_though_its_record_is_missing() {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.nodes[pair.owner].signer_hangs = true;
    let paying = pair.pay(pair.hub, &invoice);
    assert!(!pair.world.has_answered(pair.hub, paying));
    let turn = pair.world.turn(pair.hub);
    let mut payments = Payments::default();
    refuses(&mut payments, turn, &request(invoice), "ALREADY_PAID");
}

#[test]
fn a_payment_hash_of_31_bytes_is_refused() {
    let refused = payment_hash(&[1; 31]).unwrap_err();
    assert_eq!(refused.code, "BAD_PAYMENT_HASH");
}

#[test]
fn an_invoice_is_paid_once_however_often_it_is_asked_for() {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let before_msat = pair.channel(pair.hub).balance_msat;
    for _ in 0..2 {
        let paying = pair.pay(pair.owner, &invoice);
        let paid = pair.world.answer(pair.owner, paying);
        let Some(Ok(Reply::Payment(paid))) = paid else {
            panic!("not paid: {paid:?}");
        };
        assert_eq!(paid.state(), State::Succeeded);
        assert!(paid.outbound);
    }
    let after_msat = pair.channel(pair.hub).balance_msat;
    assert_eq!(after_msat, before_msat + 1_000_000);
}

#[test]
fn a_payment_that_failed_can_be_tried_again() {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let hash = hash_of(&invoice);
    let turn = pair.world.turn(pair.owner);
    let mut payments = Payments::default();
    let failed = Event::PaymentFailed {
        payment_id: PaymentId(hash.0),
        payment_hash: Some(hash),
        reason: None,
    };
    payments.on_event(turn, failed);
    assert_eq!(payments.list()[0].state(), State::Failed);
    assert_eq!(payments.list()[0].failure, "no reason given");

    assert_eq!(payments.pay(turn, &request(invoice)), Ok(hash));
    assert_eq!(payments.list()[0].state(), State::Pending);
    assert_eq!(payments.list()[0].failure, "");
    assert_eq!(payments.result(&hash), None);
}

#[test]
fn payments_are_read_back_and_listed_oldest_first() {
    let mut world = hub();
    let mut payments = Payments::default();
    for number in [3, 1, 2] {
        let turn = world.turn(0);
        turn.now.since_1970 = Duration::from_secs(number);
        let hash = PaymentHash([u8::try_from(number).unwrap(); 32]);
        payments.update(turn, hash, true, |_| {});
    }
    let writes = world.turn(0).journal.take().into_iter();
    let entries = writes.filter_map(|write| match write {
        longhand_store::Write::Put(key, value) => Some((key, value)),
        longhand_store::Write::Delete(_) => None,
    });
    let read = Payments::load(&Journal::loading(entries.collect())).unwrap();
    let times = read.list().into_iter().map(|it| it.created_unix_s);
    assert_eq!(times.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn an_unreadable_record_of_a_payment_stops_the_load() {
    let entries = vec![("pay/01".to_owned(), vec![0xff])];
    let loaded = Payments::load(&Journal::loading(entries));
    assert!(matches!(loaded, Err(NodeError::Load(_))));
}
