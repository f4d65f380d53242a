//! A higher fee for a transaction that is no payment of the owner's: the phone records that the owner wants it before the node is asked.

use super::signing::version;
use super::*;

/// A host with a node that has no payments, and that does what it is asked.
async fn attached_without_payments() -> (TempDir, Phone, Arc<ScriptedHost>) {
    let (dir, phone, host) = attached().await;
    host.script(|ask| match ask {
        Ask::ListSends(_) => Some(Act::Reply(Reply::Sends(proto::Sends::default()))),
        Ask::BumpTransaction(bump) => Some(Act::Reply(Reply::SentOnchain(proto::SentOnchain {
            txid: bump.txid.clone(),
            fee_sat: 9,
        }))),
        _ => None,
    });
    (dir, phone, host)
}

#[tokio::test]
async fn what_the_owner_wants_to_confirm_sooner_is_recorded_once_for_each_limit() {
    let (_dir, phone, _host) = attached_without_payments().await;
    let txid = "11".repeat(32);
    let before = version(&phone).await;
    for (feerate, records) in [(None, 1), (Some(1_000), 1), (Some(50_000), 2)] {
        phone.bump(&txid, feerate).await.unwrap();
        assert_eq!(version(&phone).await - before, records, "{feerate:?}");
    }
}

#[tokio::test]
async fn a_transaction_that_is_to_be_given_up_gets_no_fee() {
    let (_dir, phone, _host) = attached_without_payments().await;
    let before = version(&phone).await;
    assert!(phone.abandon(&"11".repeat(32), None).await.is_err());
    assert_eq!(version(&phone).await, before);
}
