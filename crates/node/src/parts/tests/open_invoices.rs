#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::machine::testing::World;

fn hub() -> World {
    let mut world = World::new();
    world.add_hub(1);
    world.turn(0).journal.take();
    world
}

fn request(number: u32, expiry_s: u32) -> CreateInvoice {
    let mut payment_hash = vec![0; 32];
    payment_hash[..4].copy_from_slice(&number.to_be_bytes());
    CreateInvoice {
        payment_hash,
        amount_msat: 1_000,
        description: "tea".into(),
        expiry_s,
        payment_secret: vec![7; 32],
    }
}

#[test]
fn an_open_invoice_is_listed_until_it_is_paid() {
    let mut world = hub();
    let turn = world.turn(0);
    let mut invoices = OpenInvoices::default();
    invoices.add(turn, &request(1, 3_600));
    let now = turn.now.unix_s();
    let [invoice] = &invoices.list(now)[..] else {
        panic!("one invoice");
    };
    assert_eq!(invoice.description, "tea");
    assert_eq!(invoice.expires_unix_s, now + 3_600);
    invoices.remove(turn, &request(1, 0).payment_hash);
    assert_eq!(invoices.list(now), []);
}

#[test]
fn an_invoice_is_forgotten_a_day_after_it_has_expired() {
    let mut world = hub();
    let turn = world.turn(0);
    let mut invoices = OpenInvoices::default();
    invoices.add(turn, &request(1, 60));
    let expires = turn.now.unix_s() + 60;
    assert_eq!(invoices.list(expires + KEPT_S).len(), 1);
    assert_eq!(invoices.list(expires + KEPT_S + 1).len(), 0);
    turn.now.since_1970 += Duration::from_secs(KEPT_S + 61);
    invoices.add(turn, &request(2, 60));
    assert_eq!(invoices.invoices.len(), 1);
}

#[test]
fn of_too_many_invoices_those_that_expire_first_are_forgotten() {
    let mut world = hub();
    let turn = world.turn(0);
    let mut invoices = OpenInvoices::default();
    let most = u32::try_from(MOST).unwrap();
    for number in 0..most + 2 {
        invoices.add(turn, &request(number, 10_000 - number));
    }
    assert_eq!(invoices.invoices.len(), MOST);
    assert!(invoices.get(&request(most, 0).payment_hash).is_none());
    assert!(invoices.get(&request(0, 0).payment_hash).is_some());
    let deleted = turn.journal.take();
    let is_delete =
        |write: &&longhand_store::Write| matches!(write, longhand_store::Write::Delete(_));
    assert_eq!(deleted.iter().filter(is_delete).count(), 2);
}

#[test]
fn open_invoices_are_read_back_and_one_that_cannot_be_read_is_left_out() {
    let mut world = hub();
    let turn = world.turn(0);
    let mut invoices = OpenInvoices::default();
    invoices.add(turn, &request(1, 3_600));
    let listed = invoices.list(turn.now.unix_s());
    let stored = turn.journal.take().into_iter();
    let stored = stored.filter_map(|write| match write {
        longhand_store::Write::Put(key, value) => Some((key, value)),
        longhand_store::Write::Delete(_) => None,
    });
    let damaged = ("invoice/02".to_owned(), vec![0xff]);
    let entries = stored.chain([damaged]).collect();
    let read = OpenInvoices::load(&Journal::loading(entries));
    assert_eq!(read.list(turn.now.unix_s()), listed);
}
