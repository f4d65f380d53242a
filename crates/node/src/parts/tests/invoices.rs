#![allow(clippy::unwrap_used)]

use lightning_invoice::Bolt11Invoice;
use longhand_proto::Code;

use super::*;
use crate::machine::testing::World;
use crate::parts::testing::Pair;

/// More than 21 million bitcoin.
const TOO_MUCH_MSAT: u64 = 21_000_001 * 100_000_000 * 1_000;

fn asked() -> CreateInvoice {
    CreateInvoice {
        payment_hash: vec![1; 32],
        amount_msat: 1_000,
        description: "tea".into(),
        expiry_s: 3600,
        payment_secret: vec![7; 32],
    }
}

fn refuses(request: &CreateInvoice, code: Code) {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    let turn = world.turn(owner);
    turn.journal.take();
    let refused = unsigned(turn, request, |_| true).unwrap_err();
    assert_eq!(refused.code, code, "{}", refused.message);
    assert!(turn.journal.is_empty());
}

fn refuses_locally(amount_msat: u64, description: String, code: Code) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    turn.journal.take();
    let request = InvoiceRequest {
        amount_msat,
        description,
        expiry_s: 3600,
    };
    let refused = signed_locally(turn, request).unwrap_err();
    assert_eq!(refused.code, code, "{}", refused.message);
    assert!(turn.journal.is_empty());
}

#[test]
fn a_payment_hash_that_has_not_32_bytes_is_refused() {
    let request = CreateInvoice {
        payment_hash: vec![1; 33],
        ..asked()
    };
    refuses(&request, Code::PaymentHashMalformed);
}

#[test]
fn a_payment_secret_that_has_not_32_bytes_is_refused() {
    let request = CreateInvoice {
        payment_secret: Vec::new(),
        ..asked()
    };
    refuses(&request, Code::InvoiceMalformed);
}

#[test]
fn an_amount_above_all_bitcoin_is_refused() {
    let request = CreateInvoice {
        amount_msat: TOO_MUCH_MSAT,
        ..asked()
    };
    refuses(&request, Code::AmountTooLarge);
}

#[test]
fn a_description_of_640_bytes_is_refused() {
    let request = CreateInvoice {
        description: "x".repeat(640),
        ..asked()
    };
    refuses(&request, Code::DescriptionTooLong);
}

#[test]
fn a_description_of_640_bytes_is_refused_with_local_keys_too() {
    refuses_locally(1_000, "x".repeat(640), Code::DescriptionTooLong);
}

#[test]
fn ldk_refuses_an_amount_above_all_bitcoin_with_local_keys() {
    refuses_locally(TOO_MUCH_MSAT, "tea".into(), Code::InvoiceMalformed);
}

#[test]
fn an_owners_invoice_leads_over_the_hub_and_leaves_a_day_to_claim() {
    let mut pair = Pair::new();
    let text = pair.owner_invoice(1_000_000);
    let invoice: Bolt11Invoice = text.parse().unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(1_000_000));
    assert_eq!(invoice.min_final_cltv_expiry_delta(), 144);
    let owner = pair.world.nodes[pair.owner].machine.node_id();
    assert_eq!(invoice.get_payee_pub_key(), owner);
    let hub = pair.world.nodes[pair.hub].machine.node_id();
    let hints = invoice.route_hints();
    let [hint] = &hints[..] else {
        panic!("one hint");
    };
    assert_eq!(hint.0[0].src_node_id, hub);
}

#[test]
fn an_invoice_names_no_channel_that_the_phone_has_not_seen_in_the_chain() {
    let mut pair = Pair::new();
    pair.world.has_proofs = false;
    // The second one is shown everything anew.
    for phone in [b"one", b"two"] {
        pair.phone_leaves();
        let attach = pair.world.attachment(pair.owner, phone);
        pair.world.input(pair.owner, attach);
    }
    let create = longhand_proto::command::command::Command::CreateInvoice(asked());
    let refused = pair.world.ask(pair.owner, create).unwrap_err();
    assert_eq!(refused.code, Code::NoInbound);
    assert!(
        refused.message.contains("not seen yet"),
        "{}",
        refused.message
    );
}

#[test]
fn an_invoice_may_leave_the_amount_open() {
    let mut pair = Pair::new();
    let signer = pair.world.nodes[pair.owner].signer.as_mut().unwrap();
    let limits = signer.limits().with("any_amount_sat", "1").unwrap();
    let _ = signer.set_limits(&limits).unwrap();
    let text = pair.owner_invoice(0);
    let invoice: Bolt11Invoice = text.parse().unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), None);
}

#[test]
fn an_invoice_that_no_channel_can_receive_is_refused() {
    refuses(&asked(), Code::NoInbound);
    let any = CreateInvoice {
        amount_msat: 0,
        ..asked()
    };
    refuses(&any, Code::NoInbound);
    refuses_locally(1_000, "tea".into(), Code::NoInbound);
}

#[test]
fn an_invoice_above_what_the_channels_can_receive_is_refused_with_the_number() {
    let mut pair = Pair::new();
    // The hub has 400,000 sat in the channel, of which it keeps a reserve.
    let turn = pair.world.turn(pair.owner);
    let inbound_msat = turn.channels()[0].inbound_capacity_msat;
    let request = |amount_msat| CreateInvoice {
        amount_msat,
        ..asked()
    };
    let refused = unsigned(turn, &request(inbound_msat + 1), |_| true).unwrap_err();
    assert_eq!(refused.code, Code::NoInbound);
    assert!(
        refused.message.contains(&inbound_msat.to_string()),
        "{}",
        refused.message
    );
    unsigned(turn, &request(inbound_msat), |_| true).unwrap();
}
