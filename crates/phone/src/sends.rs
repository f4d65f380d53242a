//! The owner's on-chain payments: listed, given a higher fee, given up.

use bitcoin::Txid;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_signer::Signer;

use crate::command::{Sends, SentOnchain};
use crate::error::PhoneError;
use crate::input::{check_feerate, check_txid};
use crate::owner::{ONCHAIN_FEE_KW, ONCHAIN_FEE_PERCENT, ONCHAIN_FEE_SAT};
use crate::phone::{Phone, expect_reply};

impl Phone {
    /// All on-chain payments that the host keeps, newest first.
    pub async fn sends(&self) -> Result<Sends, PhoneError> {
        let sends = self.list_sends().await?.into_iter();
        Ok(Sends {
            sends: sends.map(Into::into).collect(),
        })
    }

    /// Raises the fee of an unconfirmed payment (BIP 125), or of the funding of a channel (by a child, CPFP). The node chooses a
    /// rate without one. Safe to repeat.
    pub async fn bump(
        &self,
        txid: &str,
        feerate_sat_per_kw: Option<u32>,
    ) -> Result<SentOnchain, PhoneError> {
        let txid = check_txid(txid)?;
        check_feerate(feerate_sat_per_kw)?;
        self.allow_higher_fee(txid, feerate_sat_per_kw, false)
            .await?;
        let bump = proto::BumpTransaction {
            txid: txid.to_string(),
            feerate_sat_per_kw: feerate_sat_per_kw.unwrap_or(0),
        };
        self.replaced(Ask::BumpTransaction(bump)).await
    }

    /// Replaces an unconfirmed payment by one that sends all of it back to the owner's wallet. Safe to repeat.
    pub async fn abandon(
        &self,
        txid: &str,
        feerate_sat_per_kw: Option<u32>,
    ) -> Result<SentOnchain, PhoneError> {
        let txid = check_txid(txid)?;
        check_feerate(feerate_sat_per_kw)?;
        self.allow_higher_fee(txid, feerate_sat_per_kw, true)
            .await?;
        let abandon = proto::AbandonTransaction {
            txid: txid.to_string(),
            feerate_sat_per_kw: feerate_sat_per_kw.unwrap_or(0),
        };
        self.replaced(Ask::AbandonTransaction(abandon)).await
    }

    async fn list_sends(&self) -> Result<Vec<proto::Send>, PhoneError> {
        let list = Ask::ListSends(proto::ListSends {});
        Ok(expect_reply!(self.command(list).await?, Sends)?.sends)
    }

    /// Has the signer sign a replacement of this transaction, if it is one of the owner's payments, or else a child that pays a fee for it.
    /// The host says which; the signer compares it with what the owner asked for.
    async fn allow_higher_fee(
        &self,
        txid: Txid,
        feerate_sat_per_kw: Option<u32>,
        abandon: bool,
    ) -> Result<(), PhoneError> {
        let highest_fee_sat = ONCHAIN_FEE_KW * u64::from(feerate_sat_per_kw.unwrap_or(0));
        let sends = self.list_sends().await?;
        let text = txid.to_string();
        let is_it = |send: &&proto::Send| send.txid == text || send.replaced_txids.contains(&text);
        let Some(send) = sends.iter().find(is_it) else {
            return match abandon {
                true => Ok(()),
                false => {
                    let max_fee_sat = (2 * ONCHAIN_FEE_SAT).max(highest_fee_sat);
                    let asked =
                        move |signer: &mut Signer| signer.want_acceleration(txid, max_fee_sat);
                    self.call(asked).await
                }
            };
        };
        let id = send.id.clone();
        self.call(move |signer| {
            let mut intents = signer.onchain_intents();
            let asked = intents.find(|intent| intent.id == id);
            let amount_sat = asked.map_or(0, |intent| intent.amount_sat);
            drop(intents);
            let max_fee_sat = (2 * ONCHAIN_FEE_SAT)
                .max(amount_sat / 100 * ONCHAIN_FEE_PERCENT)
                .max(highest_fee_sat);
            signer.allow_replacement(&id, max_fee_sat, abandon)
        })
        .await
    }

    async fn replaced(&self, command: Ask) -> Result<SentOnchain, PhoneError> {
        let sent = expect_reply!(self.command(command).await?, SentOnchain)?;
        Ok(SentOnchain {
            txid: plain(&sent.txid),
            fee_sat: sent.fee_sat,
        })
    }
}
