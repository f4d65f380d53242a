//! Incoming payments: their invoices (BOLT 11), and the amounts that are committed to them (BOLT 2).

use std::collections::BTreeMap;
use std::str::FromStr;

use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};
use bech32::{Fe32, Hrp};
use bitcoin::Txid;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::Message;
use lightning_invoice::{Bolt11Bech32, Bolt11Invoice};
use longhand_proto::command::UnsignedInvoice;
use longhand_proto::signer::{ClaimableHtlc, GetPreimage};

use super::KeysId;
use crate::commitment::Side;
use crate::engine::Signer;
use crate::htlcs::{Htlc, Htlcs};
use crate::invoices::InvoiceRequest;
use crate::ledger::{Channel, OwnPayment, State};
use crate::rules::{Refused, Rule, invoices, preimages};
use crate::view::{Close, Sight};

/// The preimage of an incoming payment.
pub(crate) struct Preimage<'a> {
    pub payment: &'a OwnPayment,
    /// The HTLCs that the host says it holds for the payment.
    pub said: &'a [ClaimableHtlc],
    /// The amount that is irrevocably committed on both sides: in the owner's latest validated commitment, so that the owner can claim it
    /// alone, and in *every* commitment that the peer could still broadcast, so that the peer cannot take it back.
    ///
    /// Only HTLCs whose onions the phone has read, and found to be for the payment's invoice, in channels that are proven to be in the chain,
    /// and with time enough to claim them there.
    pub committed: Committed,
    /// The other HTLCs that are committed as irrevocably, and why they do not count.
    pub beside: Beside,
    /// See [`Committed::dust`].
    pub dust_msat: u64,
}

/// An invoice that the host wrote.
///
/// Signed, because the parser of BOLT 11 takes no other. It leaves the phone when it is judged.
pub(crate) struct Invoice<'a> {
    pub payment: &'a OwnPayment,
    pub asked: &'a InvoiceRequest,
    pub invoice: Bolt11Invoice,
}

/// Sums of HTLCs of a payment that do not count, in millisatoshis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Their onions were not read here, or are not for the payment's invoice.
    pub unread_msat: u64,
    /// Their channels are not proven to be in the chain, or not deep enough.
    pub unproven_msat: u64,
    /// Their channels were closed without them.
    pub closed_msat: u64,
    /// Neither has the second source just said that their channels are open, nor do filters show it.
    pub unwatched_msat: u64,
    /// They expire too soon to be claimed on chain.
    pub late_msat: u64,
}

/// The amount that is committed to a payment.
#[derive(Default)]
pub(crate) struct Committed {
    /// Sum of the HTLCs, in millisatoshis.
    pub msat: u64,
    /// Sum of those among them that may be dust in another channel.
    pub small_msat: u64,
    /// Themselves, by channel.
    pub htlcs: Vec<(KeysId, Htlcs)>,
}

/// HTLCs of a payment that are too small for an output in a commitment, in millisatoshis.
struct Dust {
    /// Those that count.
    msat: u64,
    /// Those that do not, for the same reason as [`Beside::unwatched_msat`].
    unwatched_msat: u64,
}

impl Preimage<'_> {
    /// The amount that was received, if it is enough for the invoice, and all that the payer sends.
    pub fn received_msat(&self) -> Option<u64> {
        let (committed_msat, asked_msat) = (self.committed.msat, self.payment.public.amount_msat);
        let due_msat = self.payment.larger_msat();
        if committed_msat > 0 && committed_msat >= due_msat {
            return Some(committed_msat);
        }
        // Not for dust alone when any amount would do.
        let may_have_dust = asked_msat > 0 || committed_msat > 0;
        let with_dust_msat = committed_msat.saturating_add(self.dust_msat);
        (may_have_dust && with_dust_msat >= due_msat).then_some(with_dust_msat)
    }

    /// The HTLCs that are the owner's from now on: those that the host says it claims, if they are enough for the invoice. LDK fails
    /// back what comes beside them.
    pub fn owed(&self) -> Vec<(KeysId, Htlcs)> {
        let is_of = |keys_id: &KeysId, htlc: &Htlc, said: &ClaimableHtlc| {
            said.channel_keys_id == keys_id[..]
                && said.amount_msat == htlc.amount_msat
                && said.cltv_expiry == htlc.cltv_expiry
        };
        let claimed = self.committed.htlcs.iter().map(|(keys_id, htlcs)| {
            let mut claimed = Htlcs::default();
            for (htlc, count) in htlcs.iter() {
                let said = self.said.iter().filter(|said| is_of(keys_id, htlc, said));
                claimed.add(*htlc, count.min(said.count() as u64));
            }
            (*keys_id, claimed)
        });
        let claimed: Vec<(KeysId, Htlcs)> = claimed.collect();
        let sums = claimed.iter().map(|(_, htlcs)| htlcs.sum_msat());
        let sum_msat = sums.fold(self.dust_msat, u64::saturating_add);
        let asked_msat = self.payment.public.amount_msat;
        match asked_msat > 0 && sum_msat >= asked_msat {
            true => claimed,
            false => self.committed.htlcs.clone(),
        }
    }
}

impl Beside {
    /// Adds up which HTLCs of a channel do not count, and returns the others.
    fn sort_out(
        &mut self,
        htlcs: Htlcs,
        read: &Htlcs,
        sight: Sight<'_>,
        channel: &Channel,
        payment_msat: u64,
    ) -> Htlcs {
        let mut keep = |htlcs: Htlcs, of_those: Htlcs, sum_msat: fn(&mut Beside) -> &mut u64| {
            let sum_msat = sum_msat(self);
            *sum_msat = sum_msat.saturating_add(htlcs.without(&of_those).sum_msat());
            of_those
        };
        let those_read = htlcs.common(read);
        let htlcs = keep(htlcs, those_read, |it| &mut it.unread_msat);
        let close = sight.close(channel);
        // Also those that are spent: before they expire only with the preimage, and late ones do not count in any case.
        let of_close = |txid: Option<Txid>| match txid {
            Some(txid) => htlcs.common(&channel.htlcs_of(txid)),
            None => Htlcs::default(),
        };
        let (standing, gone): (_, fn(&mut Beside) -> &mut u64) = match close {
            Close::Unknown => (htlcs.clone(), |it| &mut it.closed_msat),
            Close::Proven(txid) => (of_close(Some(txid)), |it| &mut it.closed_msat),
            // Until the host proves by which transaction.
            Close::Said(txid) => (of_close(txid), |it| &mut it.unwatched_msat),
        };
        let htlcs = keep(htlcs, standing, gone);
        let proven = match sight.is_deep(channel) {
            true => htlcs.clone(),
            false => Htlcs::default(),
        };
        let htlcs = keep(htlcs, proven, |it| &mut it.unproven_msat);
        let watched = match sight.is_watched(channel, payment_msat) {
            true => htlcs.clone(),
            false => Htlcs::default(),
        };
        let htlcs = keep(htlcs, watched, |it| &mut it.unwatched_msat);
        let first = sight
            .headers
            .height()
            .saturating_add(preimages::CLAIM_BLOCKS);
        let in_time = htlcs.clone().filter(|htlc| htlc.cltv_expiry >= first);
        keep(htlcs, in_time, |it| &mut it.late_msat)
    }
}

impl Committed {
    /// The HTLCs of a payment that are in the owner's latest commitment and in the `latest` ones of the peer, and the sums of those among
    /// them that do not count.
    pub fn standing(
        state: &State,
        sight: Sight<'_>,
        payment: &OwnPayment,
        latest: usize,
        small_below_msat: u64,
    ) -> (Committed, Beside) {
        let payment_hash = &payment.public.payment_hash;
        let (mut committed, mut beside) = (Committed::default(), Beside::default());
        for (keys_id, channel) in &state.channels {
            let counts = !channel.peer.is_empty() && !channel.is_closing;
            let Some(holder) = channel.holder.first().filter(|_| counts) else {
                continue;
            };
            let mut htlcs = Htlcs::of(&holder.commitment, Side::Holder)
                .filter(|htlc| !htlc.is_outgoing && htlc.payment_hash == *payment_hash);
            for peer in channel.peer.iter().take(latest) {
                htlcs = htlcs.common(&Htlcs::of(&peer.commitment, Side::Counterparty));
            }
            let read = payment.read_htlcs(keys_id);
            let htlcs = beside.sort_out(htlcs, &read, sight, channel, payment.larger_msat());
            committed.add(*keys_id, htlcs, small_below_msat);
        }
        (committed, beside)
    }

    fn add(&mut self, keys_id: KeysId, htlcs: Htlcs, small_below_msat: u64) {
        for (htlc, count) in htlcs.iter() {
            let sum_msat = htlc.amount_msat.saturating_mul(count);
            self.msat = self.msat.saturating_add(sum_msat);
            if htlc.amount_msat < small_below_msat {
                self.small_msat = self.small_msat.saturating_add(sum_msat);
            }
        }
        self.htlcs.push((keys_id, htlcs));
    }

    /// Sum of the HTLCs that the host claims and that are too small for an output in a commitment, as far as their onions were read. Dust
    /// limits are lower in most channels, so that some of them may be among the committed ones: those are not counted again.
    ///
    /// That these HTLCs are committed cannot be proved. So they count for no more than can ever be dust (546 sat, the highest dust limit in
    /// use), and for an invoice of any amount only beside others: a host can steal that much of an invoice.
    fn dust(
        &self,
        state: &State,
        sight: Sight<'_>,
        payment: &OwnPayment,
        said: &[ClaimableHtlc],
        limit_msat: u64,
    ) -> Dust {
        let is_open = |keys_id: &KeysId| {
            let channel = state.channels.get(keys_id);
            channel.is_some_and(|channel| {
                let has_begun = !channel.holder.is_empty() && !channel.peer.is_empty();
                let is_open = !channel.is_closing && sight.close(channel) == Close::Unknown;
                has_begun && is_open && sight.is_deep(channel)
            })
        };
        let is_watched = |keys_id: &KeysId| {
            let channel = state.channels.get(keys_id);
            channel.is_some_and(|channel| sight.is_watched(channel, payment.larger_msat()))
        };
        let mut dust: BTreeMap<KeysId, Htlcs> = BTreeMap::new();
        for htlc in said.iter().filter(|htlc| htlc.amount_msat < limit_msat) {
            let keys_id = KeysId::try_from(&htlc.channel_keys_id[..]).ok();
            if let Some(keys_id) = keys_id.filter(is_open) {
                let htlc = Htlc {
                    is_outgoing: false,
                    payment_hash: payment.public.payment_hash,
                    amount_msat: htlc.amount_msat,
                    cltv_expiry: htlc.cltv_expiry,
                };
                dust.entry(keys_id).or_default().add(htlc, 1);
            }
        }
        let sum_msat = |watched: bool| {
            let dust = dust
                .iter()
                .filter(|(keys_id, _)| is_watched(keys_id) == watched);
            let read =
                dust.map(|(keys_id, htlcs)| htlcs.common(&payment.read_htlcs(keys_id)).sum_msat());
            read.fold(0, u64::saturating_add)
        };
        let more_msat = sum_msat(true).saturating_sub(self.small_msat);
        Dust {
            msat: more_msat.min(limit_msat),
            unwatched_msat: sum_msat(false),
        }
    }
}

impl Signer {
    pub(super) fn read_preimage<'a>(
        &'a self,
        op: &'a GetPreimage,
        now_unix_s: u64,
    ) -> Result<Preimage<'a>, Refused> {
        let payment_hash = <[u8; 32]>::try_from(op.payment_hash.as_slice()).ok();
        let payment = payment_hash
            .and_then(|hash| self.state.payments.get(&hash))
            .ok_or_else(preimages::no_invoice)?;
        let dust_msat = preimages::DUST_MSAT;
        let (state, sight) = (&self.state, self.sight(now_unix_s));
        let (committed, mut beside) =
            Committed::standing(state, sight, payment, usize::MAX, dust_msat);
        let dust = committed.dust(state, sight, payment, &op.htlcs, dust_msat);
        beside.unwatched_msat = beside.unwatched_msat.saturating_add(dust.unwatched_msat);
        Ok(Preimage {
            payment,
            said: &op.htlcs,
            dust_msat: dust.msat,
            beside,
            committed,
        })
    }

    /// Reads the host's unsigned invoice for the payment of `asked`.
    pub(crate) fn read_invoice<'a>(
        &'a self,
        unsigned: &UnsignedInvoice,
        asked: &'a InvoiceRequest,
    ) -> Result<Invoice<'a>, Refused> {
        let payment = self.state.payments.get(&asked.payment_hash);
        let payment = payment
            .ok_or_else(|| Refused::new(Rule::PreimageUnknown, "no such payment was made here"))?;
        Ok(Invoice {
            payment,
            asked,
            invoice: self.assemble_invoice(unsigned)?,
        })
    }

    /// Signs and assembles the invoice of these parts, unchecked.
    fn assemble_invoice(&self, unsigned: &UnsignedInvoice) -> Result<Bolt11Invoice, Refused> {
        let unreadable = || invoices::mismatch("it cannot be read");
        let hrp = Hrp::parse(&unsigned.hrp).map_err(|_| unreadable())?;
        let groups: Result<Vec<Fe32>, _> = unsigned
            .data
            .iter()
            .map(|group| Fe32::try_from(*group))
            .collect();
        let mut groups = groups.map_err(|_| unreadable())?;

        // BOLT 11: the human-readable part and the data, its bits padded with zeros to whole bytes.
        let mut signed = sha256::Hash::engine();
        signed.input(unsigned.hrp.as_bytes());
        signed.input(&whole_bytes(&groups));
        let digest = Message::from_digest(sha256::Hash::from_engine(signed).to_byte_array());
        let key = self.keys.ldk.get_node_secret_key();
        let (recovery, signature) = self
            .keys
            .secp
            .sign_ecdsa_recoverable(&digest, &key)
            .serialize_compact();
        let recovery = u8::try_from(recovery.to_i32()).map_err(|_| unreadable())?;
        groups.extend(signature.into_iter().chain([recovery]).bytes_to_fes());

        let text: String = groups
            .into_iter()
            .with_checksum::<Bolt11Bech32>(&hrp)
            .chars()
            .collect();
        Bolt11Invoice::from_str(&text).map_err(|_| unreadable())
    }
}

/// `groups` of five bits as bytes, padded with zero bits.
fn whole_bytes(groups: &[Fe32]) -> Vec<u8> {
    let missing = match groups.len() * 5 % 8 {
        0 => 0,
        1 | 2 => 2,
        _ => 1,
    };
    groups
        .iter()
        .copied()
        .chain(std::iter::repeat_n(Fe32::Q, missing))
        .fes_to_bytes()
        .collect()
}
