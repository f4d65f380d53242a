//! Paying an invoice: checked, on record, sent, waited for, proved.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;

use crate::command::{Payment, PaymentState};
use crate::error::PhoneError;
use crate::input::{CheckedPayment, InputError, check_payment};
use crate::phone::{Phone, expect_reply};
use crate::serve::now_unix_s;

/// Between two questions to a host that answers that a payment has not ended.
const PENDING_PAUSE: Duration = Duration::from_secs(1);

impl Phone {
    /// Pays an invoice and returns when it is paid, with the proof checked. Fails with [`PhoneError::PaymentFailed`] when
    /// it is not and will not be.
    ///
    /// Until then it waits, through links that break. Dropped before, the payment goes on: pay the same invoice again to
    /// wait for its end.
    pub async fn pay(
        &self,
        bolt11: &str,
        amount_msat: Option<u64>,
        max_fee_msat: Option<u64>,
    ) -> Result<Payment, PhoneError> {
        let payment = self.check_payment(bolt11, amount_msat, max_fee_msat)?;
        let hash = payment.payment_hash;
        let (is_own, was_tried) = self
            .look(move |signer| {
                let is_own = signer
                    .payments()
                    .any(|payment| payment.payment_hash == hash);
                let was_tried = signer.intents().any(|intent| intent.payment_hash == hash);
                (is_own, was_tried)
            })
            .await?;
        if is_own {
            return Err(InputError::OwnInvoice.into());
        }
        let known = if was_tried {
            self.outbound_payment(&hash).await?
        } else {
            None
        };
        let paid = match known.map(|payment| payment.state) {
            Some(PaymentState::Succeeded) => return Err(InputError::AlreadyPaid.into()),
            Some(PaymentState::Pending) => self.await_payment(&hash).await?,
            _ => self.begin_payment(payment).await?,
        };
        self.finish_payment(&hash, paid).await
    }

    async fn begin_payment(&self, payment: CheckedPayment) -> Result<Payment, PhoneError> {
        let CheckedPayment {
            payment_hash,
            amount_msat,
            max_fee_msat,
            expires_unix_s,
            ..
        } = payment;
        self.call(move |signer| {
            let now = now_unix_s();
            signer.add_intent(payment_hash, amount_msat, max_fee_msat, expires_unix_s, now)
        })
        .await?;
        self.wait_while_waking().await;
        let pay = proto::Pay {
            bolt11: payment.bolt11,
            amount_msat: if payment.amount_is_open {
                amount_msat
            } else {
                0
            },
            max_fee_msat,
        };
        Ok(expect_reply!(self.ask(Ask::Pay(pay), None).await?, Payment)?.into())
    }

    /// Waits as long as it takes, and looks at the proof.
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
                PaymentState::Succeeded if proves(&payment.preimage, hash) => return Ok(payment),
                PaymentState::Succeeded => return Err(PhoneError::ProofInvalid),
                PaymentState::Failed => return Err(PhoneError::PaymentFailed(payment.failure)),
                PaymentState::Unknown => {
                    return Err(PhoneError::Answer("a payment in no known state"));
                }
                PaymentState::Pending => payment = self.await_payment(hash).await?,
            }
            if payment.state == PaymentState::Pending {
                tokio::time::sleep(PENDING_PAUSE).await;
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
        let hash = hash.to_lower_hex_string();
        let mut payments = self.payments().await?.payments.into_iter();
        Ok(payments.find(|payment| payment.outbound && payment.payment_hash == hash))
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
            now_unix_s(),
        )
    }
}

/// Whether `preimage` in hex is the one of `hash`.
fn proves(preimage: &str, hash: &[u8; 32]) -> bool {
    let preimage: Result<[u8; 32], _> = bitcoin::hex::FromHex::from_hex(preimage);
    preimage.is_ok_and(|preimage| sha256::Hash::hash(&preimage).to_byte_array() == *hash)
}
