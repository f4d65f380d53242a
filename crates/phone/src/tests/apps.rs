//! Apps of the owner's: connected by the phone, and asking it through the host.

use longhand_proto::command::app_reply::Reply as Answer;
use longhand_proto::command::app_request::Ask as AppAsk;
use longhand_proto::command::payment::State;
use longhand_proto::command::{
    AppAddress, AppInvoice, AppPay, AppReply, AppRequest, AppSendOnchain,
};
use prost::Message;
use tokio::sync::Notify;

use super::*;
use crate::approval::{Allowances, Approve, Denied, Wish};
use crate::command::{AppRights, OwnerCommand, OwnerReply};

/// What the host sends on behalf of an app.
async fn ask(host: &ScriptedHost, ask: AppAsk) -> Result<Answer, LinkError> {
    let request = AppRequest {
        app: "Zeus\u{202e}".into(),
        ask: Some(ask),
    };
    let reply = host.conversation.request("app", request.encode_to_vec());
    let reply = AppReply::decode(reply.await?.as_slice()).unwrap();
    Ok(reply.reply.unwrap())
}

fn pay(invoice: &InvoiceSpec) -> AppAsk {
    AppAsk::Pay(AppPay {
        bolt11: invoice.text(),
        amount_msat: 0,
        max_fee_msat: Some(1_000),
    })
}

fn refusal(answer: Answer) -> (String, String) {
    match answer {
        Answer::Error(error) => (error.code, error.message),
        answer => panic!("not refused: {answer:?}"),
    }
}

/// A host at which every payment succeeds.
fn pays(host: &ScriptedHost) {
    let paid = InvoiceSpec::default().payment(State::Succeeded);
    host.script(move |ask| match ask {
        Ask::Pay(_) => Some(Act::Reply(Reply::Payment(paid.clone()))),
        _ => None,
    });
}

#[tokio::test]
async fn nobody_pays_for_an_app_on_a_phone_where_nobody_decides_about_apps() {
    let (_dir, phone, host) = attached().await;
    let invoice = InvoiceSpec::default();
    pays(&host);
    let (code, message) = refusal(ask(&host, pay(&invoice)).await.unwrap());
    assert_eq!(code, Code::NotConfirmed.as_str());
    assert!(
        message.contains("nobody decides on this phone"),
        "{message}"
    );
    assert_eq!(host.asked(), []);
    assert_eq!(
        phone.look(|signer| signer.intents().count()).await.unwrap(),
        0
    );
}

#[tokio::test]
async fn an_app_spends_within_its_own_allowance_and_the_owner_within_another() {
    let (_dir, phone, host) = attached().await;
    let invoice = InvoiceSpec::default();
    pays(&host);
    phone.set_approver(Allowances {
        pay_sat: 1_000_000,
        ..Allowances::default()
    });
    let (code, message) = refusal(ask(&host, pay(&invoice)).await.unwrap());
    assert_eq!(code, Code::NotConfirmed.as_str());
    assert!(message.contains("above the 0 sat"), "{message}");
    phone.set_approver(Allowances {
        app_pay_sat: 1_000_000,
        ..Allowances::default()
    });
    let Answer::Paid(paid) = ask(&host, pay(&invoice)).await.unwrap() else {
        panic!("not paid");
    };
    assert_eq!(
        paid.payment_hash,
        invoice.payment(State::Succeeded).payment_hash
    );
    let sent = AppAsk::SendOnchain(AppSendOnchain {
        address: "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x".into(),
        amount_sat: 1,
        ..AppSendOnchain::default()
    });
    refusal(ask(&host, sent).await.unwrap());
}

/// Decides never.
struct Thinking(Arc<Notify>);

#[async_trait]
impl Approve for Thinking {
    async fn approve(&self, _: &Wish) -> Result<(), Denied> {
        Ok(())
    }

    async fn approve_for_app(&self, app: &str, _: &Wish) -> Result<(), Denied> {
        // The name is a text from the host.
        assert_eq!(app, "Zeus");
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_question_that_is_withdrawn_leaves_nothing_and_does_not_stop_the_next() {
    let (_dir, phone, host) = attached().await;
    let asked = Arc::new(Notify::new());
    phone.set_approver(Thinking(asked.clone()));
    let invoice = InvoiceSpec::default();
    tokio::select! {
        answer = ask(&host, pay(&invoice)) => panic!("{answer:?}"),
        () = asked.notified() => {}
    }
    let made = ask(&host, AppAsk::Invoice(invoice_of(1_000)))
        .await
        .unwrap();
    assert!(matches!(made, Answer::Invoice(_)), "{made:?}");
    assert_eq!(
        phone.look(|signer| signer.intents().count()).await.unwrap(),
        0
    );
}

fn invoice_of(amount_msat: u64) -> AppInvoice {
    AppInvoice {
        amount_msat,
        description: "tea".into(),
        expiry_s: 600,
    }
}

#[tokio::test]
async fn an_invoice_for_an_app_is_the_phones_own() {
    let (_dir, phone, host) = attached().await;
    let Answer::Invoice(made) = ask(&host, AppAsk::Invoice(invoice_of(1_000)))
        .await
        .unwrap()
    else {
        panic!("no invoice");
    };
    let invoice: Bolt11Invoice = made.bolt11.parse().unwrap();
    assert_eq!(invoice.get_payee_pub_key(), phone.node_id());
    assert_eq!(invoice.payment_hash().0.to_vec(), made.payment_hash);
    let (code, _) = refusal(
        ask(&host, AppAsk::Invoice(AppInvoice::default()))
            .await
            .unwrap(),
    );
    assert_eq!(code, Code::ExpiryZero.as_str());
}

#[tokio::test]
async fn apps_cannot_fill_the_ledger_with_invoices() {
    let (_dir, _phone, host) = attached().await;
    for _ in 0..120 {
        let made = ask(&host, AppAsk::Address(AppAddress {})).await.unwrap();
        let (code, _) = refusal(made);
        assert_eq!(code, "UNSCRIPTED");
    }
    let (code, message) = refusal(ask(&host, AppAsk::Invoice(invoice_of(1))).await.unwrap());
    assert_eq!(code, Code::Busy.as_str());
    assert!(message.contains("in the last hour"), "{message}");
}

#[tokio::test]
async fn what_is_no_question_is_refused_by_its_kind() {
    let (_dir, _phone, host) = attached().await;
    let code = |refused: Result<Vec<u8>, LinkError>| match refused {
        Err(LinkError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    let refused = host.conversation.request("app", vec![0xff; 9]).await;
    assert_eq!(code(refused), Code::BadRequest.as_str());
    let (unknown, _) = refusal({
        let reply = host.conversation.request("app", Vec::new()).await.unwrap();
        AppReply::decode(reply.as_slice()).unwrap().reply.unwrap()
    });
    assert_eq!(unknown, Code::AnswerMalformed.as_str());
}

#[tokio::test]
async fn an_app_is_connected_listed_and_disconnected() {
    let host = scripted_host();
    host.script(|ask| {
        let app = proto::App {
            name: "Zeus".into(),
            rights: Some(proto::AppRights {
                read: true,
                ..proto::AppRights::default()
            }),
            ..proto::App::default()
        };
        Some(Act::Reply(match ask {
            Ask::ConnectApp(connect) => {
                assert_eq!(connect.name, "Zeus");
                Reply::ConnectedApp(proto::ConnectedApp {
                    words: "ten words".into(),
                    ..proto::ConnectedApp::default()
                })
            }
            Ask::ListApps(_) => Reply::Apps(proto::Apps { apps: vec![app] }),
            Ask::DisconnectApp(_) => Reply::Apps(proto::Apps::default()),
            _ => return None,
        }))
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let rights = AppRights {
        read: true,
        ..AppRights::default()
    };
    let connect = OwnerCommand::ConnectApp {
        name: "Zeus".into(),
        rights,
        expires_unix_s: 0,
    };
    let OwnerReply::ConnectedApp(connected) = phone.execute(connect).await.unwrap() else {
        panic!("not connected");
    };
    assert_eq!(connected.words, "ten words");
    let OwnerReply::Apps(known) = phone.execute(OwnerCommand::Apps).await.unwrap() else {
        panic!("no list");
    };
    assert_eq!((known.apps.len(), known.apps[0].rights), (1, rights));
    let name = "Zeus".into();
    let left = phone
        .execute(OwnerCommand::DisconnectApp { name })
        .await
        .unwrap();
    assert_eq!(
        left,
        OwnerReply::Apps(crate::command::Apps { apps: Vec::new() })
    );
    for name in ["", " Zeus", "Zeus\n", &"z".repeat(33)] {
        let bad = phone.connect_app(name, rights, 0).await;
        assert_eq!(code_of(bad), Code::AppNameMalformed.as_str(), "{name:?}");
    }
}
