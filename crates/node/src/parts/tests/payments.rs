#![allow(clippy::unwrap_used)]

use lightning_invoice::Currency;
use longhand_proto::Code;

use super::*;
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
fn refuses(payments: &mut Payments, turn: &Turn, request: &Pay, code: Code) {
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
        Code::InvoiceMalformed,
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
        Code::WrongNetwork,
    );
}

#[test]
fn an_invoice_of_the_node_itself_is_refused() {
    let mut pair = Pair::new();
    let own = pair.hub_invoice(1_000);
    let turn = pair.world.turn(pair.hub);
    refuses(
        &mut Payments::default(),
        turn,
        &request(own),
        Code::InvoiceOwn,
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
        Code::InvoiceOwn,
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
    let turn = world.turn(0);
    refuses(
        &mut Payments::default(),
        turn,
        &request,
        Code::InvoiceExpired,
    );
    let refused = Payments::default().pay(turn, &request).unwrap_err();
    let expiry = longhand_proto::utc(START_UNIX_S - 3600);
    let clock = format!(
        "the host's clock shows {}",
        longhand_proto::utc(turn.now.unix_s())
    );
    for part in [expiry, clock] {
        assert!(refused.message.contains(&part), "{}", refused.message);
    }
}

#[test]
fn an_invoice_without_an_amount_needs_one() {
    let mut world = hub();
    let request = request(stranger_invoice(Currency::Regtest, None, START_UNIX_S));
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request,
        Code::AmountMissing,
    );
}

#[test]
fn more_than_the_channels_can_send_is_refused() {
    let mut world = hub();
    refuses(
        &mut Payments::default(),
        world.turn(0),
        &request(payable()),
        Code::InsufficientFunds,
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
        Code::NoRoute,
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
    refuses(&mut payments, turn, &request(invoice), Code::AlreadyPaid);
}

#[test]
fn a_payment_hash_of_31_bytes_is_refused() {
    let refused = payment_hash(&[1; 31]).unwrap_err();
    assert_eq!(refused.code, Code::PaymentHashMalformed);
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

#[test]
fn a_payment_that_failed_leaves_the_history_when_it_is_tried_again() {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let hash = hash_of(&invoice);
    let turn = pair.world.turn(pair.owner);
    turn.journal.take();
    let mut payments = Payments::default();
    let failed = |payment: &mut Payment| payment.state = State::Failed.into();
    payments.update(turn, hash, true, failed);
    payments.archive(turn, |_| false);
    assert_eq!(payments.live(&hash), None);
    turn.journal.take();
    turn.now.since_1970 += Duration::from_secs(5);
    payments.pay(turn, &request(invoice)).unwrap();
    let writes = turn.journal.take();
    let deleted = writes.iter().filter_map(|write| match write {
        longhand_store::Write::Delete(key) => Some(key.split('/').next().unwrap()),
        longhand_store::Write::Put(..) => None,
    });
    assert_eq!(deleted.collect::<Vec<_>>(), ["~hash", "~time"]);
    assert_eq!(payments.live(&hash).unwrap().state(), State::Pending);
}

#[test]
fn a_payment_with_a_claim_stays_out_of_the_history() {
    let mut world = hub();
    let turn = world.turn(0);
    let hash = PaymentHash([1; 32]);
    let mut payments = Payments::default();
    let succeeded = |payment: &mut Payment| payment.state = State::Succeeded.into();
    payments.update(turn, hash, false, succeeded);
    payments.archive(turn, |_| true);
    assert!(payments.live(&hash).is_some());
    payments.archive(turn, |_| false);
    assert_eq!(payments.live(&hash), None);
    assert!(payments.is_known(&hash));
}

#[test]
fn records_that_were_read_are_forgotten_when_there_are_many_and_live_ones_are_not() {
    let mut world = hub();
    let turn = world.turn(0);
    let mut payments = Payments::default();
    let hash = |number: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        PaymentHash(hash)
    };
    payments.update(turn, hash(0), true, |_| {});
    for number in 1..=MOST_READ + 1 {
        payments.read([(hash(number), None)]);
    }
    payments.forget_read();
    assert!(payments.is_known(&hash(0)) && !payments.is_known(&hash(1)));
}

/// BOLT 11 has one prefix for both testnets.
#[test]
fn an_invoice_of_every_network_is_made_signed_and_passes_the_check_of_its_payer() {
    use bitcoin::Network::{Bitcoin, Regtest, Signet, Testnet, Testnet4};
    let networks = [
        (Bitcoin, "lnbc"),
        (Testnet, "lntb"),
        (Testnet4, "lntb"),
        (Signet, "lntbs"),
        (Regtest, "lnbcrt"),
    ];
    let invoices = networks.map(|(network, prefix)| {
        let bolt11 = invoice_on(network);
        let digit = bolt11.strip_prefix(prefix).unwrap().chars().next();
        assert!(digit.unwrap().is_ascii_digit(), "{bolt11}");
        (network, bolt11)
    });
    for (network, bolt11) in &invoices {
        let mut world = hub();
        let turn = world.turn(0);
        on(turn, *network);
        let refused = Payments::default().pay(turn, &request(bolt11.as_str()));
        assert_eq!(
            refused.unwrap_err().code,
            Code::InsufficientFunds,
            "{network}"
        );
        let (_, other) = invoices
            .iter()
            .find(|(other, _)| Currency::from(*other) != Currency::from(*network))
            .unwrap();
        let refused = Payments::default().pay(turn, &request(other.as_str()));
        assert_eq!(refused.unwrap_err().code, Code::WrongNetwork, "{network}");
    }
}

/// Makes the node one of another network, as far as invoices are concerned.
fn on(turn: &mut Turn, network: bitcoin::Network) {
    let keys = crate::api::Keys::Local([1; 32].into());
    turn.config = std::sync::Arc::new(crate::api::NodeConfig::new("node", network, keys));
}

/// An invoice of an owner's node, signed by its phone.
fn invoice_on(network: bitcoin::Network) -> String {
    let mut pair = Pair::new();
    let turn = pair.world.turn(pair.owner);
    on(turn, network);
    let seed = longhand_signer::Seed::from_entropy(&[2; 16]).unwrap();
    let mut signer = longhand_signer::Signer::new(&seed, network, &[2; 32]).unwrap();
    // It has signed for no channel, and the invoice has a hint to one.
    let limits = signer.limits().with("invoice-hint", "warn").unwrap();
    let _ = signer.set_limits(&limits).unwrap();
    let now = turn.now.unix_s();
    let payment_hash = signer.new_payment(1_000, [5; 32], now).unwrap().value;
    let asked = longhand_signer::InvoiceRequest {
        payment_hash,
        amount_msat: 1_000,
        description: "tea".into(),
        expiry_s: 3600,
    };
    let create = CreateInvoice {
        payment_hash: payment_hash.to_vec(),
        amount_msat: asked.amount_msat,
        description: asked.description.clone(),
        expiry_s: asked.expiry_s,
        payment_secret: signer.payment_secret(&asked).unwrap().to_vec(),
    };
    let unsigned = invoices::unsigned(turn, &create, |_| true).unwrap();
    let signed = signer.finish_invoice(&unsigned, &asked, now).unwrap();
    signed.value.to_string()
}
