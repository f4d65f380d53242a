//! The owner's limits, and what was refused.

use longhand_proto::signer::CounterpartyRevocation;
use longhand_proto::signer::signer_op::Op;

use super::dying::open;
use super::signing::{ask, batch, batch_on, setup};
use super::*;
use crate::approval::Allowances;
use crate::command::{OwnerCommand, OwnerReply};
use crate::input::OnchainAmount;

fn set(name: &str, value: &str) -> OwnerCommand {
    OwnerCommand::SetLimit {
        name: name.into(),
        value: value.into(),
    }
}

async fn value(phone: &Phone, name: &str) -> String {
    let limits = phone.limits().await.unwrap().limits;
    let limit = limits.into_iter().find(|limit| limit.name == name);
    limit.unwrap().value
}

#[tokio::test]
async fn a_limit_that_is_set_holds_after_a_restart_and_a_wrong_one_changes_nothing() {
    let (dir, phone, host) = attached().await;
    let OwnerReply::Limits(limits) = phone.execute(set("withhold", "all")).await.unwrap() else {
        panic!()
    };
    let listed = limits.limits.iter().find(|limit| limit.name == "withhold");
    let listed = listed.unwrap();
    assert_eq!((&listed.value[..], &listed.default[..]), ("all", "hub"));
    phone.execute(set("balance", "warn")).await.unwrap();
    for (name, value) in [
        ("withhold", "some"),
        ("spend", "1"),
        ("no-rule", "warn"),
        ("malformed", "warn"),
        ("spend_per_hour_sat", "999999999999"),
    ] {
        let refused = phone.execute(set(name, value)).await;
        assert_eq!(code_of(refused), Code::LimitMalformed, "{name}");
    }
    assert!(host.asked().is_empty());
    phone.stop_now();
    let phone = start(open(&dir), ToHost(host)).unwrap();
    assert_eq!(value(&phone, "withhold").await, "all");
    assert_eq!(value(&phone, "balance").await, "warn");
    assert_eq!(value(&phone, "payment-unasked").await, "refuse");
    assert_eq!(value(&phone, "spend_per_hour_sat").await, "20000000");
}

#[tokio::test]
async fn a_payment_above_a_limit_is_not_sent() {
    let (_dir, phone, host) = attached().await;
    // The invoice is over 5,000 sat.
    phone
        .execute(set("spend_per_hour_sat", "5001"))
        .await
        .unwrap();
    let bolt11 = InvoiceSpec::default().text();
    let refused = phone.pay(&bolt11, None, Some(1_001)).await;
    assert_eq!(code_of(refused), Code::LimitReached);
    assert!(host.asked().is_empty());
}

#[tokio::test]
async fn a_payment_above_a_limit_that_only_warns_is_sent_and_listed() {
    let (_dir, phone, host) = attached().await;
    for (name, value) in [("spend_per_hour_sat", "5001"), ("spend-limit", "warn")] {
        phone.execute(set(name, value)).await.unwrap();
    }
    let bolt11 = InvoiceSpec::default().text();
    // The host of this test answers no payment.
    let sent = phone.pay(&bolt11, None, Some(1_001)).await;
    assert_eq!(code_of(sent), "UNSCRIPTED");
    assert_eq!(host.asked().len(), 1);
    let listed = phone.refusals().await.unwrap().refusals;
    let listed: Vec<_> = listed
        .iter()
        .map(|it| (&it.rule[..], it.is_warning))
        .collect();
    assert_eq!(listed, [("spend-limit", true)]);
}

#[tokio::test]
async fn what_was_refused_is_listed_after_a_restart() {
    let (dir, phone, host) = attached().await;
    assert!(phone.refusals().await.unwrap().refusals.is_empty());
    let setup = setup(&host).await;
    ask(&host, &setup).await.unwrap();
    let keys_id = setup.ops[0].channel_keys_id.clone();
    let revocation = || {
        Op::CounterpartyRevocation(CounterpartyRevocation {
            index: 7,
            secret: vec![1; 32],
        })
    };
    for _ in 0..2 {
        let wrong = batch_on(&keys_id, [revocation()]);
        ask(&host, &wrong).await.unwrap();
    }
    ask(&host, &batch([revocation()])).await.unwrap();
    phone.stop_now();

    let phone = start(open(&dir), ToHost(host)).unwrap();
    let refusals = phone.refusals().await.unwrap().refusals;
    let listed: Vec<_> = refusals
        .iter()
        .map(|refusal| (&refusal.rule[..], refusal.count))
        .collect();
    assert_eq!(listed, [("unknown-channel", 1), ("revocation-order", 2)]);
}

#[tokio::test]
async fn a_wish_that_is_not_granted_is_neither_recorded_nor_sent() {
    let (_dir, phone, host) = attached().await;
    let rules = Allowances {
        pay_sat: 5_001,
        open_sat: 100_000,
        ..Allowances::default()
    };
    phone.set_approver(rules);
    // The invoice is over 5,000 sat.
    let bolt11 = InvoiceSpec::default().text();
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let wishes = [
        code_of(phone.pay(&bolt11, None, Some(1_001)).await),
        code_of(phone.open(100_001, None, false, false, None).await),
        code_of(
            phone
                .send_onchain(address, OnchainAmount::Sat(1_000), None)
                .await,
        ),
        code_of(phone.send_onchain(address, OnchainAmount::All, None).await),
        code_of(phone.close(&"01".repeat(32), false).await),
    ];
    assert_eq!(wishes, [(); 5].map(|()| Code::NotConfirmed));
    assert!(host.asked().is_empty());
    let recorded = phone
        .look(|signer| signer.intents().count() + signer.channel_intents().count())
        .await;
    assert_eq!(recorded.unwrap(), 0);

    // What is allowed goes its way: the host of this test answers no payment.
    let allowed = code_of(phone.pay(&bolt11, None, Some(1_000)).await);
    assert_eq!(allowed, "UNSCRIPTED");
}
