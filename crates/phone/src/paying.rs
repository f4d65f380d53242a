//! Payment of an invoice: checked, recorded, sent, awaited, and its proof verified.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use longhand_proto::Code;
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_signer::{PaymentIntent, Recorded, Refused, Rule, Signer};

use crate::approval::Wish;
use crate::command::{Payment, PaymentState};
use crate::durable_signer::blocking;
use crate::error::PhoneError;
use crate::input::{CheckedPayment, InputError, check_payment};
use crate::phone::{Phone, expect_reply};

/// The interval of asking a host that answers that a payment has not ended.
const PENDING_PAUSE: Duration = Duration::from_secs(1);

/// For so long an attempt waits for the HTLC of the one before to leave its channel, and looks as often.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
const SETTLED_PAUSE: Duration = Duration::from_millis(100);

/// The state of a payment in the ledger when the owner asks for it.
enum OnRecord {
    /// It was unknown, and is recorded now.
    New,
    /// The owner has asked for it before, and may not know its result.
    Before { is_over: bool },
    /// The invoice is the owner's own.
    Own,
}

/// The part of a payment that is recorded.
struct Intent {
    payment_hash: [u8; 32],
    amount_msat: u64,
    max_fee_msat: u64,
    expires_unix_s: u64,
}

impl Intent {
    fn of(payment: &CheckedPayment) -> Intent {
        Intent {
            payment_hash: payment.payment_hash,
            amount_msat: payment.amount_msat,
            max_fee_msat: payment.max_fee_msat,
            expires_unix_s: payment.expires_unix_s,
        }
    }

    fn add(&self, signer: &mut Signer, now_unix_s: u64) -> Result<Recorded<()>, Refused> {
        signer.add_intent(
            self.payment_hash,
            self.amount_msat,
            self.max_fee_msat,
            self.expires_unix_s,
            now_unix_s,
        )
    }
}

impl Phone {
    /// Pays an invoice and returns when it is paid, with the proof verified. Fails with [`PhoneError::PaymentFailed`] when it is not
    /// paid and will not be.
    ///
    /// Until then it waits, also while links break. When the future is dropped, the payment goes on: pay the same invoice again to
    /// wait for its end.
    pub async fn pay(
        &self,
        bolt11: &str,
        amount_msat: Option<u64>,
        max_fee_msat: Option<u64>,
    ) -> Result<Payment, PhoneError> {
        let payment = self.check_payment(bolt11, amount_msat, max_fee_msat)?;
        let hash = payment.payment_hash;
        let wish = Wish::Pay {
            payment_hash: hash,
            amount_msat: payment.amount_msat,
            max_fee_msat: payment.max_fee_msat,
        };
        self.approved(wish).await?;
        let paid = match self.put_on_record(&payment).await? {
            OnRecord::Own => return Err(InputError::OwnInvoice.into()),
            OnRecord::New => self.send_payment(payment).await?,
            OnRecord::Before { is_over } => match self.outbound_payment(&hash).await? {
                Some(known) if known.state == PaymentState::Succeeded => {
                    return Err(InputError::AlreadyPaid.into());
                }
                Some(known) if known.state == PaymentState::Pending => {
                    self.await_payment(&hash).await?
                }
                // The owner waits for the end of the earlier attempt.
                Some(known) if known.state == PaymentState::Failed && !is_over => known,
                _ => {
                    self.intend(&payment).await?;
                    self.send_payment(payment).await?
                }
            },
        };
        self.finish_payment(&hash, paid).await
    }

    /// Records the payment, unless it is known.
    async fn put_on_record(&self, payment: &CheckedPayment) -> Result<OnRecord, PhoneError> {
        let (intent, now_unix_s) = (Intent::of(payment), self.now_unix_s());
        self.call(move |signer| {
            let hash = intent.payment_hash;
            if signer.payments().any(|own| own.payment_hash == hash) {
                return Ok(Recorded::unchanged(OnRecord::Own));
            }
            let mut intents = signer.intents();
            let before = intents.find(|other| other.payment_hash == hash);
            if let Some(PaymentIntent { is_over, .. }) = before {
                let is_over = *is_over;
                return Ok(Recorded::unchanged(OnRecord::Before { is_over }));
            }
            drop(intents);
            Ok(intent.add(signer, now_unix_s)?.with(OnRecord::New))
        })
        .await
    }

    /// Records it again, with the amount and the fee limit of now. The HTLC of an attempt that has just failed may leave its channel a
    /// moment later.
    async fn intend(&self, payment: &CheckedPayment) -> Result<(), PhoneError> {
        let until = self.inner.runtime.uptime() + SETTLED_WITHIN;
        loop {
            let (intent, now_unix_s) = (Intent::of(payment), self.now_unix_s());
            let recorded = self.call(move |signer| intent.add(signer, now_unix_s));
            match recorded.await {
                Err(PhoneError::Refused(refused))
                    if refused.rule == Rule::PaymentLimit
                        && self.inner.runtime.uptime() < until =>
                {
                    self.inner.runtime.sleep(SETTLED_PAUSE).await;
                }
                recorded => return recorded,
            }
        }
    }

    async fn send_payment(&self, payment: CheckedPayment) -> Result<Payment, PhoneError> {
        let pay = proto::Pay {
            bolt11: payment.bolt11,
            amount_msat: if payment.amount_is_open {
                payment.amount_msat
            } else {
                0
            },
            max_fee_msat: Some(payment.max_fee_msat),
        };
        Ok(expect_reply!(self.ask(Ask::Pay(pay), None).await?, Payment)?.into())
    }

    /// Waits until the payment has ended, and verifies its proof.
    async fn finish_payment(
        &self,
        hash: &[u8; 32],
        mut payment: Payment,
    ) -> Result<Payment, PhoneError> {
        loop {
            if payment.payment_hash != hash.to_lower_hex_string() {
                return Err(PhoneError::Answer("it is about another payment"));
            }
            match payment.state {
                PaymentState::Succeeded if proves(&payment.preimage, hash) => {
                    // What was paid may be lost: no more than the limit of the payment could leave for it.
                    let hash = *hash;
                    let end = move |signer: &mut Signer| signer.payment_ended(&hash);
                    blocking(&self.inner.signer, move |signer| signer.note(end)).await?;
                    return Ok(payment);
                }
                PaymentState::Succeeded => return Err(PhoneError::ProofInvalid),
                PaymentState::Failed => {
                    let hash = *hash;
                    self.call(move |signer| signer.payment_ended(&hash)).await?;
                    return Err(PhoneError::PaymentFailed(payment.failure));
                }
                PaymentState::Unknown => {
                    return Err(PhoneError::Answer("a payment in no known state"));
                }
                PaymentState::Pending => payment = self.await_payment(hash).await?,
            }
            if payment.state == PaymentState::Pending {
                self.inner.runtime.sleep(PENDING_PAUSE).await;
            }
        }
    }

    async fn await_payment(&self, hash: &[u8; 32]) -> Result<Payment, PhoneError> {
        let wait = Ask::AwaitPayment(proto::AwaitPayment {
            payment_hash: hash.to_vec(),
        });
        Ok(expect_reply!(self.ask(wait, None).await?, Payment)?.into())
    }

    async fn outbound_payment(&self, hash: &[u8; 32]) -> Result<Option<Payment>, PhoneError> {
        let found = match self.find_payment(hash).await {
            // A host that is older than this command lists all of its payments at once.
            Err(PhoneError::Host(error)) if error.code == Code::UnknownCommand => {
                let hash = hash.to_lower_hex_string();
                let mut payments = self.payments().await?.payments.into_iter();
                payments.find(|payment| payment.payment_hash == hash)
            }
            found => found?,
        };
        Ok(found.filter(|payment| payment.outbound))
    }

    pub(crate) fn check_payment(
        &self,
        bolt11: &str,
        amount_msat: Option<u64>,
        max_fee_msat: Option<u64>,
    ) -> Result<CheckedPayment, InputError> {
        let (network, node_id) = (self.network(), self.inner.node_id);
        check_payment(
            bolt11,
            amount_msat,
            max_fee_msat,
            network,
            &node_id,
            self.now_unix_s(),
        )
    }
}

/// Whether `hash` is the hash of `preimage`, which is hex.
fn proves(preimage: &str, hash: &[u8; 32]) -> bool {
    let preimage: Result<[u8; 32], _> = bitcoin::hex::FromHex::from_hex(preimage);
    preimage.is_ok_and(|preimage| sha256::Hash::hash(&preimage).to_byte_array() == *hash)
}
