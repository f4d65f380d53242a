//! Payments that an owner or a payer makes by mistake, at a bad moment, or with extreme terms.

use std::time::Duration;

use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef};
use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::payment::State;
use longhand_proto::command::{Error, Payment};

use crate::machine::WAKING_LIMIT;
use crate::machine::output::RequestId;
use crate::machine::testing::Id;
use crate::parts::testing::Pair;

/// The answer to a `Pay` that has ended.
fn paid(pair: &mut Pair, id: Id, request: RequestId) -> Result<Payment, Error> {
    match pair.world.answer(id, request).expect("the payment ended")? {
        Reply::Payment(payment) => Ok(payment),
        other => panic!("no payment: {other:?}"),
    }
}

#[test]
fn an_invoice_whose_payment_is_pending_is_not_paid_again() {
    let mut pair = Pair::new();
    let (hub, owner) = (pair.hub, pair.owner);
    let invoice = pair.owner_invoice(1_000_000);
    let before_msat = pair.channel(hub).balance_msat;
    pair.world.nodes[owner].signer_hangs_at_preimage = true;
    let requests = [(); 2].map(|()| pair.pay(hub, &invoice));
    for request in requests {
        assert!(!pair.world.has_answered(hub, request), "it is pending");
    }

    let phone = &mut pair.world.nodes[owner];
    (phone.signer_hangs_at_preimage, phone.signer_hangs) = (false, false);
    pair.phone_leaves();
    pair.world.attach(owner);
    let paid = requests.map(|request| paid(&mut pair, hub, request).unwrap());
    assert_eq!(paid[0].state(), State::Succeeded);
    assert_eq!(paid[0], paid[1]);
    assert_eq!(pair.channel(hub).balance_msat, before_msat - 1_000_000);
}

#[test]
fn a_payment_while_the_only_peer_is_away_is_refused_and_can_be_made_when_it_is_back() {
    let mut pair = Pair::new();
    let owner = pair.owner;
    let invoice = pair.hub_invoice(1_000_000);
    let before_msat = pair.channel(owner).balance_msat;
    pair.phone_leaves();
    pair.world.is_offline = true;
    pair.world.attach(owner);
    let request = pair.pay(owner, &invoice);
    pair.world.pass(WAKING_LIMIT);
    let refused = paid(&mut pair, owner, request).unwrap_err();
    assert_eq!(refused.code, Code::PeerAway, "{}", refused.message);
    assert_eq!(refused.action(), Action::Retry);
    assert_eq!(pair.payment(owner, &invoice), None);

    pair.world.is_offline = false;
    pair.world.pass(Duration::from_secs(60));
    let request = pair.pay(owner, &invoice);
    let paid = paid(&mut pair, owner, request).unwrap();
    assert_eq!(paid.state(), State::Succeeded);
    assert_eq!(pair.channel(owner).balance_msat, before_msat - 1_000_000);
}

/// A payer reads what the owner wrote, is not refused, and both records say the same.
fn is_paid_as(description: &str, expiry_s: u32) {
    let mut pair = Pair::new();
    let (hub, owner) = (pair.hub, pair.owner);
    let text = pair.owner_invoice_as(1_000_000, description, expiry_s);
    let invoice: Bolt11Invoice = text.parse().unwrap();
    let Bolt11InvoiceDescriptionRef::Direct(written) = invoice.description() else {
        panic!("a hash: {text}");
    };
    assert_eq!(written.as_inner().0, description);
    let request = pair.pay(hub, &text);
    let sent = paid(&mut pair, hub, request).unwrap();
    let received = pair.payment(owner, &text).unwrap();
    let expires_unix_s = pair.world.now.unix_s() + u64::from(expiry_s);
    for record in [sent, received] {
        assert_eq!(record.state(), State::Succeeded);
        assert_eq!(record.description, description);
        assert_eq!(record.expires_unix_s, expires_unix_s);
    }
}

#[test]
fn an_invoice_of_136_years_is_paid() {
    is_paid_as("tea", u32::MAX);
}

#[test]
fn an_invoice_of_a_second_is_paid_within_it() {
    is_paid_as("tea", 1);
}

#[test]
fn the_longest_description_arrives_as_it_was_written() {
    is_paid_as(&"x".repeat(639), 3_600);
    is_paid_as(&format!("{}abc", "\u{1f375}".repeat(159)), 3_600);
}

#[test]
fn a_description_that_would_steer_a_terminal_and_an_empty_one_harm_no_payment() {
    is_paid_as("\0\u{1b}[2J\u{202e}tea\r\n", 3_600);
    is_paid_as("", 3_600);
}
