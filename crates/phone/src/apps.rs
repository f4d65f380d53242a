//! Apps of the owner's: connecting them, and answering what they ask for through the host.
//!
//! An app that is connected asks the host by lnd's RPC. What needs the phone comes here: a payment is the app's wish, which the
//! approver decides about, and is then carried out as one of the owner's own. An invoice or an address takes nothing from the owner.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use bitcoin::hex::FromHex;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use longhand_base::text::excerpt;
use longhand_link::Incoming;
use longhand_proto::Code;
use longhand_proto::command as proto;
use longhand_proto::command::app_reply::Reply as Answer;
use longhand_proto::command::app_request::Ask as AppAsk;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use prost::Message;
use tokio::sync::mpsc;

use crate::command::{AppRights, Apps, ConnectedApp};
use crate::error::PhoneError;
use crate::input::{OnchainAmount, check_app_name};
use crate::phone::{Inner, Phone, expect_reply};

/// Questions that are answered at once.
const AT_ONCE: usize = 8;

/// The most invoices and addresses for apps: each stays in the ledger, or moves the wallet's index on.
const MADE_PER_HOUR: usize = 120;
const HOUR: Duration = Duration::from_secs(3_600);

impl Phone {
    /// Connects an app over Lightning Node Connect: whoever has the ten words first calls the node by lnd's RPC, within these rights.
    ///
    /// # Errors
    /// The host's refusal, such as one without a mailbox for it.
    pub async fn connect_app(
        &self,
        name: &str,
        rights: AppRights,
        expires_unix_s: u64,
    ) -> Result<ConnectedApp, PhoneError> {
        check_app_name(name)?;
        let connect = Ask::ConnectApp(proto::ConnectApp {
            name: name.to_owned(),
            rights: Some(rights.into()),
            expires_unix_s,
        });
        Ok(expect_reply!(self.command(connect).await?, ConnectedApp)?.into())
    }

    /// The owner's apps.
    ///
    /// # Errors
    /// [`PhoneError::HostAway`] and others of the link.
    pub async fn apps(&self) -> Result<Apps, PhoneError> {
        let list = Ask::ListApps(proto::ListApps {});
        Ok(expect_reply!(self.command(list).await?, Apps)?.into())
    }

    /// Disconnects an app: its next call is refused. Returns those that are left.
    ///
    /// # Errors
    /// The host's refusal, when there is no such app.
    pub async fn disconnect_app(&self, name: &str) -> Result<Apps, PhoneError> {
        check_app_name(name)?;
        let disconnect = Ask::DisconnectApp(proto::DisconnectApp {
            name: name.to_owned(),
        });
        Ok(expect_reply!(self.command(disconnect).await?, Apps)?.into())
    }
}

/// Answers until the phone is dropped.
pub(crate) async fn serve(mut asked: mpsc::Receiver<Incoming>, phone: Weak<Inner>) {
    let made = Made::default();
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = answering.next() => {}
            request = asked.recv(), if answering.len() < AT_ONCE => {
                let Some(request) = request else { return };
                answering.push(answer(request, phone.clone(), &made));
            }
        }
    }
}

async fn answer(request: Incoming, phone: Weak<Inner>, made: &Made) {
    let Incoming {
        payload, responder, ..
    } = request;
    let Ok(asked) = proto::AppRequest::decode(payload.as_slice()) else {
        return responder.refuse(Code::BadRequest, "the request is no AppRequest");
    };
    let Some(inner) = phone.upgrade() else { return };
    let phone = Phone::of(inner).for_app(&excerpt(&asked.app));
    // The app has gone, or waits no longer: the owner is not asked any more. A payment that has begun ends by itself.
    let answered = tokio::select! {
        biased;
        () = responder.cancelled() => return,
        answered = carry_out(&phone, asked.ask, made) => answered,
    };
    let reply = answered.unwrap_or_else(|error| {
        let report = error.report();
        Answer::Error(proto::Error {
            code: report.code,
            message: report.message,
            ..proto::Error::default()
        })
    });
    let reply = proto::AppReply { reply: Some(reply) };
    responder.respond(reply.encode_to_vec());
}

async fn carry_out(phone: &Phone, ask: Option<AppAsk>, made: &Made) -> Result<Answer, PhoneError> {
    Ok(match ask {
        Some(AppAsk::Pay(pay)) => {
            let amount_msat = Some(pay.amount_msat).filter(|it| *it > 0);
            let paid = phone
                .pay(&pay.bolt11, amount_msat, pay.max_fee_msat)
                .await?;
            let payment_hash = bytes(&paid.payment_hash);
            Answer::Paid(proto::AppPaid { payment_hash })
        }
        Some(AppAsk::Invoice(new)) => {
            made.count(phone)?;
            let amount_msat = Some(new.amount_msat).filter(|it| *it > 0);
            let invoice = phone.invoice(amount_msat, &new.description, new.expiry_s);
            let invoice = invoice.await?;
            Answer::Invoice(proto::AppInvoiced {
                payment_hash: bytes(&invoice.payment_hash),
                bolt11: invoice.bolt11,
            })
        }
        Some(AppAsk::Address(_)) => {
            made.count(phone)?;
            Answer::Address(phone.address().await?.address)
        }
        Some(AppAsk::SendOnchain(send)) => {
            let amount = match send.all {
                true => OnchainAmount::All,
                false => OnchainAmount::Sat(send.amount_sat),
            };
            let feerate = Some(send.feerate_sat_per_kw).filter(|it| *it > 0);
            let sent = phone.send_onchain(&send.address, amount, feerate).await?;
            Answer::Txid(sent.txid)
        }
        None => {
            return Err(PhoneError::Answer(
                "a question of an app that is not known: update the phone",
            ));
        }
    })
}

/// Bytes of what the phone itself has written as hex.
fn bytes(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).unwrap_or_default()
}

/// When invoices and addresses were made for apps, in the last hour.
#[derive(Default)]
struct Made(Mutex<VecDeque<Duration>>);

impl Made {
    fn count(&self, phone: &Phone) -> Result<(), PhoneError> {
        let now = phone.inner.runtime.uptime();
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while made.front().is_some_and(|at| *at + HOUR <= now) {
            made.pop_front();
        }
        if made.len() >= MADE_PER_HOUR {
            return Err(PhoneError::AppsBusy);
        }
        made.push_back(now);
        Ok(())
    }
}
