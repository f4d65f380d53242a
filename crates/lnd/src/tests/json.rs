//! The form of lnd's JSON.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::proto::lnrpc::{
    GetInfoResponse, Invoice, ListInvoiceRequest, NewAddressRequest, Payment, PaymentHash,
};
use crate::proto::routerrpc::SendPaymentRequest;

#[test]
fn all_fields_are_written_by_their_names() {
    let written = serde_json::to_value(Payment::default()).unwrap();
    assert_eq!(written["value_msat"], json!("0"));
    assert_eq!(written["status"], json!("UNKNOWN"));
    assert_eq!(written["failure_reason"], json!("FAILURE_REASON_NONE"));
    assert_eq!(written["payment_hash"], json!(""));
    assert_eq!(written["htlcs"], json!([]));
    let invoice = Invoice {
        r_hash: vec![0xfb, 0xff],
        value: -1,
        ..Invoice::default()
    };
    let written = serde_json::to_value(invoice).unwrap();
    assert_eq!(written["r_hash"], json!("+/8="));
    assert_eq!(written["value"], json!("-1"));
    assert_eq!(written["features"], json!({}));
    let written = serde_json::to_value(GetInfoResponse::default()).unwrap();
    assert_eq!(written["block_height"], json!(0));
    assert_eq!(written["synced_to_chain"], json!(false));
    let written = serde_json::to_value(NewAddressRequest::default()).unwrap();
    assert_eq!(
        written,
        json!({ "type": "WITNESS_PUBKEY_HASH", "account": "" })
    );
}

#[test]
fn apps_write_numbers_bytes_and_names_in_several_ways() {
    for value in [json!(5), json!("5"), json!(5.0)] {
        let read: Invoice = read(json!({ "value_msat": value, "memo": null })).unwrap();
        assert_eq!(read.value_msat, 5);
    }
    let camel: Invoice = read(json!({ "valueMsat": "7", "rPreimage": "" })).unwrap();
    assert_eq!(camel.value_msat, 7);
    for text in ["+/8=", "-_8=", "-_8", " /8="] {
        let read: PaymentHash = read(json!({ "r_hash": text })).unwrap();
        assert_eq!(read.r_hash, [0xfb, 0xff]);
    }
    for kind in [json!("TAPROOT_PUBKEY"), json!(4), json!("4")] {
        let read: NewAddressRequest = read(json!({ "type": kind })).unwrap();
        assert_eq!(read.r#type, 4);
    }
    for flag in [json!(true), json!("true")] {
        let read: ListInvoiceRequest = read(json!({ "reversed": flag })).unwrap();
        assert!(read.reversed);
    }
    let send =
        json!({ "outgoing_chan_ids": ["1", 2], "dest_custom_records": { "5": "AA==" }, "new": 1 });
    let send: SendPaymentRequest = read(send).unwrap();
    assert_eq!(send.outgoing_chan_ids, [1, 2]);
    assert_eq!(send.dest_custom_records[&5], [0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    for value in [
        json!("5x"),
        json!(0.5),
        json!(1e300),
        json!([]),
        json!(u64::MAX),
    ] {
        assert!(
            read::<Invoice>(json!({ "value": value })).is_err(),
            "{value}"
        );
    }
    assert!(read::<SendPaymentRequest>(json!({ "timeout_seconds": 1_u64 << 31 })).is_err());
    assert!(read::<PaymentHash>(json!({ "r_hash": "*" })).is_err());
    assert!(read::<NewAddressRequest>(json!({ "type": "ELSE" })).is_err());
}
