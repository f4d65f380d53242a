//! Payments that have ended: they leave the memory, and are found again.

use std::time::Duration;

use lightning::events::Event;
use lightning::ln::channelmanager::PaymentId;
use lightning::types::payment::PaymentPreimage;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{
    GetPayment, Invoices, ListInvoices, ListPayments, Payment, Payments,
};
use longhand_store::Write;
use prost::Message;

use crate::machine::input::Input;
use crate::machine::testing::{Id, World};
use crate::parts::testing::{Pair, hash_of};
use crate::store::journal::Journal;
use crate::store::schema::{VERSION, key, payment_key};

fn keys(world: &World, id: Id, prefix: &str) -> usize {
    let keys = world.nodes[id].store.keys();
    keys.filter(|key| key.starts_with(prefix)).count()
}

fn page(world: &mut World, id: Id, limit: u32, before: Vec<u8>) -> Payments {
    match world.ask(id, Kind::ListPayments(ListPayments { limit, before })) {
        Ok(Reply::Payments(page)) => page,
        other => panic!("no page: {other:?}"),
    }
}

fn find(world: &mut World, id: Id, hash: &[u8]) -> Option<Payment> {
    let payment_hash = hash.to_vec();
    match world.ask(id, Kind::GetPayment(GetPayment { payment_hash })) {
        Ok(Reply::FoundPayment(found)) => found.payment,
        other => panic!("no answer: {other:?}"),
    }
}

/// A payment of the owner to the hub that has succeeded, and its invoice.
fn paid() -> (Pair, String) {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let paying = pair.pay(pair.owner, &invoice);
    let answer = pair.world.answer(pair.owner, paying);
    assert!(matches!(answer, Some(Ok(Reply::Payment(_)))), "{answer:?}");
    (pair, invoice)
}

#[test]
fn a_payment_that_has_ended_is_not_loaded_and_is_found_all_the_same() {
    let (mut pair, invoice) = paid();
    let (owner, hash) = (pair.owner, hash_of(&invoice));
    assert_eq!(keys(&pair.world, owner, key::PAYMENT), 0);
    pair.world.reload(owner);
    assert!(!pair.world.nodes[owner].machine.payments.is_known(&hash));

    let listed = page(&mut pair.world, owner, 0, Vec::new());
    assert_eq!((listed.payments.len(), listed.next.len()), (1, 0));
    let found = find(&mut pair.world, owner, &hash.0).unwrap();
    assert_eq!(listed.payments[0], found);
    assert_eq!(found.state(), State::Succeeded);
    assert_eq!(find(&mut pair.world, owner, &[9; 32]), None);
}

#[test]
fn the_record_of_a_payment_has_payee_text_invoice_and_dates() {
    let (mut pair, invoice) = paid();
    let (owner, hub) = (pair.owner, pair.hub);
    let hash = hash_of(&invoice).0;
    let out = find(&mut pair.world, owner, &hash).unwrap();
    let hub_id = pair.world.nodes[hub].machine.node_id().serialize();
    assert_eq!(out.payee_node_id, hub_id);
    assert_eq!((out.description.as_str(), &out.bolt11), ("tea", &invoice));
    assert!(out.ended_unix_s >= out.created_unix_s && out.created_unix_s > 0);
    assert!(out.expires_unix_s > 0);
}

#[test]
fn an_invoice_that_was_paid_before_a_restart_is_not_paid_again() {
    let (mut pair, invoice) = paid();
    pair.world.reload(pair.owner);
    pair.world.attach(pair.owner);
    pair.world.pass(Duration::from_secs(3_600));
    let before = pair.channel(pair.owner).balance_msat;
    let again = pair.pay(pair.owner, &invoice);
    let Some(Ok(Reply::Payment(again))) = pair.world.answer(pair.owner, again) else {
        panic!("no answer");
    };
    assert_eq!(again.state(), State::Succeeded);
    assert_eq!(pair.channel(pair.owner).balance_msat, before);
}

#[test]
fn an_event_that_ldk_repeats_after_a_restart_keeps_the_record_of_its_payment() {
    let (mut pair, invoice) = paid();
    let (owner, hash) = (pair.owner, hash_of(&invoice));
    let record = find(&mut pair.world, owner, &hash.0).unwrap();
    pair.world.reload(owner);
    pair.world.pass(Duration::from_secs(60));
    let preimage = <[u8; 32]>::try_from(&record.preimage[..]).unwrap();
    let again = Event::PaymentSent {
        payment_id: Some(PaymentId(hash.0)),
        payment_preimage: PaymentPreimage(preimage),
        payment_hash: hash,
        amount_msat: None,
        fee_paid_msat: Some(record.fee_msat),
        bolt12_invoice: None,
    };
    let machine = &mut pair.world.nodes[owner].machine;
    machine.ldk_event(again);
    assert_eq!(machine.unread(), [hash]);
    assert!(!machine.payments.is_known(&hash));
    pair.world.input(owner, Input::TimerExpired);
    pair.world.pass(Duration::from_secs(1));
    assert_eq!(pair.world.nodes[owner].machine.unread(), []);
    assert_eq!(find(&mut pair.world, owner, &hash.0), Some(record));
    assert_eq!(
        page(&mut pair.world, owner, 0, Vec::new()).payments.len(),
        1
    );
}

#[test]
fn a_turn_that_needs_a_record_is_not_committed_before_it_is_read() {
    let (mut pair, invoice) = paid();
    let owner = pair.owner;
    pair.world.reload(owner);
    let (now, rates) = (pair.world.now, pair.world.fee_rates);
    let machine = &mut pair.world.nodes[owner].machine;
    let wait = longhand_proto::command::AwaitPayment {
        payment_hash: hash_of(&invoice).0.to_vec(),
    };
    let command = longhand_proto::command::Command {
        command: Some(Kind::AwaitPayment(wait)),
    };
    machine.turn(now, rates, vec![Input::Command(1_000, Box::new(command))]);
    let unread = machine.unread().to_vec();
    assert_eq!(unread, [hash_of(&invoice)]);
    assert!(!machine.must_commit());
    machine.turn(
        now,
        rates,
        vec![Input::RecordsRead(vec![(unread[0], None)])],
    );
    assert_eq!(machine.unread(), []);
}

#[test]
fn payments_of_version_2_move_into_the_history_when_the_node_is_loaded() {
    let (mut pair, invoice) = paid();
    let (owner, hash) = (pair.owner, hash_of(&invoice));
    let record = find(&mut pair.world, owner, &hash.0).unwrap();
    let store = &mut pair.world.nodes[owner].store;
    store.split_off(key::HISTORY);
    store.insert(payment_key(&hash), record.encode_to_vec());
    store.insert(key::VERSION.into(), 2_u32.to_be_bytes().to_vec());
    pair.world.reload(owner);
    assert_eq!(keys(&pair.world, owner, key::PAYMENT), 0);
    assert_eq!(keys(&pair.world, owner, key::HISTORY_BY_TIME), 1);
    let version = &pair.world.nodes[owner].store[key::VERSION];
    assert_eq!(version[..], VERSION.to_be_bytes());
    pair.world.reload(owner);
    assert_eq!(find(&mut pair.world, owner, &hash.0), Some(record));
}

#[test]
fn a_pending_payment_is_on_the_page_and_in_the_history_once_it_has_ended() {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.nodes[pair.owner].signer_hangs = true;
    let paying = pair.pay(pair.hub, &invoice);
    assert!(!pair.world.has_answered(pair.hub, paying));
    let state = |pair: &mut Pair| {
        let page = page(&mut pair.world, pair.hub, 0, Vec::new());
        let [payment] = &page.payments[..] else {
            panic!("one payment: {page:?}");
        };
        payment.state()
    };
    assert_eq!(state(&mut pair), State::Pending);
    assert_eq!(keys(&pair.world, pair.hub, key::HISTORY), 0);
    pair.phone_leaves();
    pair.world.attach(pair.owner);
    pair.world.pass(Duration::from_secs(2));
    assert_eq!(state(&mut pair), State::Succeeded);
    assert_eq!(keys(&pair.world, pair.hub, key::PAYMENT), 0);
}

#[test]
fn a_hundred_payments_come_in_pages_newest_first() {
    let mut pair = Pair::new();
    let owner = pair.owner;
    let journal = Journal::default();
    for number in 1..=100_u8 {
        let payment = Payment {
            payment_hash: vec![number; 32],
            state: State::Failed.into(),
            created_unix_s: number.into(),
            ..Payment::default()
        };
        crate::store::history::add(&journal, &payment);
    }
    for write in journal.take() {
        if let Write::Put(key, value) = write {
            pair.world.nodes[owner].store.insert(key, value);
        }
    }
    let first = page(&mut pair.world, owner, 40, Vec::new());
    let second = page(&mut pair.world, owner, 40, first.next.clone());
    let third = page(&mut pair.world, owner, 40, second.next.clone());
    let times = [&first, &second, &third].map(|page| page.payments.iter());
    let times = times.into_iter().flatten().map(|it| it.created_unix_s);
    assert!(times.eq((1..=100).rev()));
    assert_eq!(third.next, Vec::<u8>::new());
    let malformed = ListPayments {
        before: vec![1; 39],
        ..ListPayments::default()
    };
    let refused = pair.world.ask(owner, Kind::ListPayments(malformed));
    assert_eq!(refused.unwrap_err().code, Code::CursorMalformed);
}

fn open_invoices(world: &mut World, id: Id) -> Invoices {
    match world.ask(id, Kind::ListInvoices(ListInvoices {})) {
        Ok(Reply::Invoices(invoices)) => invoices,
        other => panic!("no invoices: {other:?}"),
    }
}

#[test]
fn an_invoice_is_open_until_it_is_paid_and_its_text_is_then_in_the_payment() {
    let mut pair = Pair::new();
    let owner = pair.owner;
    let invoice = pair.owner_invoice(1_000_000);
    let hash = hash_of(&invoice).0;
    pair.world.reload(owner);
    pair.world.attach(owner);
    pair.world.pass(Duration::from_secs(2));
    let open = open_invoices(&mut pair.world, owner).invoices;
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&open[0].payment_hash[..], open[0].amount_msat),
        (&hash[..], 1_000_000)
    );

    pair.pay(pair.hub, &invoice);
    assert_eq!(open_invoices(&mut pair.world, owner).invoices, []);
    assert_eq!(keys(&pair.world, owner, key::INVOICE), 0);
    let received = find(&mut pair.world, owner, &hash).unwrap();
    assert_eq!(received.state(), State::Succeeded);
    assert_eq!(received.description, "tea");
    assert_eq!(received.expires_unix_s, open[0].expires_unix_s);
}
