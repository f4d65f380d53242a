//! A phone, a peer, and a channel between them. The peer signs with LDK's own signer, so that the phone gets what a
//! real peer would send.

use std::collections::BTreeMap;
use std::str::FromStr;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, Txid};
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::ln::types::ChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};
use lightning_invoice::Bolt11Invoice;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{ChannelIntent, Filters, Payment, Rule, Seed, Signer};

use crate::chain::{Chain, funding_transaction, prove};
use crate::onion::Offer;

/// The index of a channel's first commitment (BOLT 3).
pub const FIRST: u64 = (1 << 48) - 1;
/// Made with the phone's ledger.
pub const LEDGER_KEY: [u8; 32] = [4; 32];
/// The channel keys id that a phone with that ledger gives for sixteen bytes of 3.
pub const KEYS_ID: [u8; 32] = [
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0x66, 0xdb, 0x1e, 0xd9, 0x16, 0x54, 0x61, 0x7c,
    0x46, 0xc6, 0x18, 0xf6, 0x9f, 0x7f, 0xe0, 0x2a,
];
/// The id of the owner's opening, when the phone funds the channel.
pub const OPENING: [u8; 16] = [2; 16];
/// The capacity of the channel.
pub const VALUE_SAT: u64 = 1_000_000;
/// All that a funder has in its first commitments at 1,000 sat for 1,000 weight units: 1,124 of these and two anchors are paid.
pub const FUNDER_SAT: u64 = VALUE_SAT - 1_124 - 660;
/// What the peer asks for in it.
pub const TERMS: ChannelTerms = ChannelTerms {
    peer_dust_limit_sat: 354,
    owner_reserve_sat: VALUE_SAT / 100,
};
/// The time of the phone's clock, in seconds since 1970.
pub const NOW: u64 = 1_800_000_000;
/// The phone's words.
pub const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// The phone's seed.
pub fn seed() -> Seed {
    Seed::from_words(WORDS).expect("the scene is honest")
}

/// A phone with what it has written to disk.
pub struct Phone {
    /// The engine.
    pub signer: Signer,
    /// Its records.
    pub disk: Vec<Vec<u8>>,
    /// The time of its clock, in seconds since 1970.
    pub now_unix_s: u64,
    /// The operations that it was sent, and its answers.
    pub said: Vec<(SignerOp, Answer)>,
    /// The channel that [`Phone::ask`] is about.
    pub keys_id: [u8; 32],
    /// Whether each HTLC that comes for an invoice has its payer's onion, which the phone reads first.
    pub has_onions: bool,
    /// The chain, as far as it is mined.
    pub chain: Chain,
    /// The funding output of the channel that was set up last.
    pub funding: bitcoin::OutPoint,
    /// Whether a channel that was set up confirms at once, and is proven to the phone.
    pub has_chain: bool,
    /// The onions that were read, by HTLC.
    offered: BTreeMap<Htlc, u64>,
    hub: Option<PublicKey>,
}

impl Phone {
    /// A new phone.
    pub fn new() -> Phone {
        Phone::with_ledger_key(LEDGER_KEY)
    }

    /// A new phone with the same words, and another ledger.
    pub fn with_ledger_key(ledger_key: [u8; 32]) -> Phone {
        let signer = Signer::new(&seed(), Network::Regtest, &ledger_key);
        Phone {
            signer: signer.expect("the scene is honest"),
            disk: Vec::new(),
            now_unix_s: NOW,
            said: Vec::new(),
            keys_id: KEYS_ID,
            has_onions: true,
            chain: Chain::new(b"scene"),
            funding: bitcoin::OutPoint::null(),
            has_chain: true,
            offered: BTreeMap::new(),
            hub: None,
        }
    }

    /// Asks on a channel, or on none.
    ///
    /// # Errors
    /// The refusal.
    pub fn ask_on(&mut self, keys_id: &[u8], op: Op) -> Result<Answer, Refusal> {
        let batch = SignerBatch {
            ops: vec![SignerOp {
                channel_keys_id: keys_id.to_vec(),
                op: Some(op),
            }],
        };
        let outcome = self.signer.handle(&batch, self.now_unix_s);
        self.keep(&outcome.records);
        let answers = outcome.reply.answers;
        let answer = answers
            .into_iter()
            .next()
            .expect("the scene is honest")
            .answer
            .expect("the scene is honest");
        self.said.push((batch.ops[0].clone(), answer.clone()));
        match answer {
            Answer::Refusal(refusal) => {
                assert!(outcome.records.is_empty(), "a refusal left a trace");
                Err(refusal)
            }
            answer => Ok(answer),
        }
    }

    /// Asks on the test's channel.
    pub fn ask(&mut self, op: Op) -> Result<Answer, Refusal> {
        self.read_onions_of(&op);
        let keys_id = self.keys_id;
        let setup = match &op {
            Op::SetupChannel(setup) => Some(setup.parameters.clone()),
            _ => None,
        };
        let answer = self.ask_on(&keys_id, op)?;
        if let Some(parameters) = setup {
            let parameters = ChannelTransactionParameters::read(&mut &parameters[..], None);
            let parameters = parameters.expect("it was set up");
            let funding = parameters.funding_outpoint.expect("it was set up");
            self.funding = funding.into_bitcoin_outpoint();
            if self.has_chain {
                self.confirm(&parameters);
            }
        }
        Ok(answer)
    }

    /// The funding of a channel confirms, if there is such a transaction; the phone is shown six blocks, and the proof.
    pub fn confirm(&mut self, parameters: &ChannelTransactionParameters) {
        let funding = funding_transaction(parameters);
        let txid = funding.compute_txid();
        if parameters.funding_outpoint.map(|it| it.txid) != Some(txid) {
            return;
        }
        if self.chain.place(txid).is_none() {
            self.chain.mine(&[funding]);
            self.chain.mine_empty(5);
        }
        self.show_headers();
        let proof = prove(&self.chain.proof(txid));
        let keys_id = self.keys_id;
        self.ask_on(&keys_id, proof).expect("the scene is honest");
    }

    /// Shows the phone the blocks that it does not know.
    pub fn show_headers(&mut self) {
        let known = self.signer.headers().height();
        if known < self.chain.height() {
            let headers = self.chain.headers_above(known);
            self.ask_on(&[], headers).expect("the scene is honest");
        }
    }

    /// Before an operation that has incoming HTLCs: the phone has read their onions when they were offered.
    pub fn read_onions_of(&mut self, op: &Op) {
        if self.has_onions {
            self.read_onions(&incoming(&self.keys_id, op));
        }
    }

    /// The phone reads the onions of HTLCs in its channel which it has not read yet: those of honest payers of its invoices.
    pub fn read_onions(&mut self, htlcs: &[Htlc]) {
        let mut counts: BTreeMap<Htlc, u64> = BTreeMap::new();
        for htlc in htlcs {
            *counts.entry(*htlc).or_default() += 1;
        }
        for (htlc, count) in counts {
            for _ in self.offered.get(&htlc).copied().unwrap_or(0)..count {
                self.read_onion(htlc, htlcs);
            }
        }
    }

    fn read_onion(&mut self, htlc: Htlc, beside: &[Htlc]) {
        let is_paid = |payment: &&Payment| payment.payment_hash == htlc.payment_hash;
        let payment = self.signer.payments().find(is_paid);
        let Some(invoice) = payment.and_then(|it| Bolt11Invoice::from_str(&it.bolt11).ok()) else {
            return;
        };
        let parts = beside
            .iter()
            .filter(|it| it.payment_hash == htlc.payment_hash);
        let sum_msat: u64 = parts.map(|part| part.amount_msat).sum();
        let total_msat = invoice.amount_milli_satoshis().unwrap_or(sum_msat);
        let htlc_id = self.offered.values().sum();
        let (node, secret) = (self.signer.keys().node_id(), invoice.payment_secret().0);
        let offer = Offer::of(htlc, htlc_id, node, secret, total_msat);
        let keys_id = self.keys_id;
        if self.ask_on(&[], offer.peel(keys_id)).is_ok() {
            *self.offered.entry(htlc).or_default() += 1;
        }
    }

    /// Asks, and returns the rule that refused.
    pub fn refused(&mut self, op: Op) -> Rule {
        rule(&self.ask(op).expect_err("should have been refused"))
    }

    /// The owner sets a limit.
    pub fn limit(&mut self, name: &str, value: &str) {
        let limits = self.signer.limits().with(name, value).expect("a limit");
        let set = self.signer.set_limits(&limits).expect("a limit");
        self.keep(&set.records);
    }

    /// Keys for another channel: their id, and the public ones.
    pub fn more_keys(&mut self, asked: [u8; 32]) -> ([u8; 32], ChannelPublicKeys) {
        let new = NewChannelKeys {
            channel_keys_id: asked.to_vec(),
            points: 1,
        };
        let Ok(Answer::NewChannelKeys(keys)) = self.ask_on(&[], Op::NewChannelKeys(new)) else {
            panic!("no keys")
        };
        let keys_id = keys.channel_keys_id[..].try_into().expect("an id");
        let public = Readable::read(&mut &keys.public_keys[..]).expect("public keys");
        (keys_id, public)
    }

    /// The owner asks to pay this amount for this hash, with a fee of a tenth of it at most.
    pub fn intend(&mut self, payment_hash: [u8; 32], amount_msat: u64) {
        let (fee_msat, now) = (amount_msat / 10, self.now_unix_s);
        let added = self
            .signer
            .add_intent(payment_hash, amount_msat, fee_msat, now + 3600, now);
        self.keep(&added.expect("the scene is honest").records);
    }

    /// The owner asks to close this channel by force.
    pub fn intend_force(&mut self, channel: &Channel) {
        self.intend_close(&channel.id().0, true, "");
    }

    /// The owner asks to close a channel.
    pub fn intend_close(&mut self, channel_id: &[u8], force: bool, address: &str) {
        let intent = ChannelIntent::Close {
            channel_id: channel_id.to_vec(),
            force,
            address: address.to_owned(),
        };
        let added = self.signer.add_channel_intent(intent, NOW);
        self.keep(&added.expect("the scene is honest").records);
    }

    /// The owner wants this transaction to confirm sooner.
    pub fn accelerate(&mut self, txid: Txid) {
        let asked = self.signer.want_acceleration(txid, 50_000);
        self.keep(&asked.expect("the scene is honest").records);
    }

    /// The owner asks for the opening of this channel.
    pub fn intend_opening(&mut self, channel: &Channel) {
        self.intend_opening_as(channel, false);
    }

    /// The same, for a channel that is to be announced or not.
    pub fn intend_opening_as(&mut self, channel: &Channel, announced: bool) {
        let intent = ChannelIntent::Open {
            id: OPENING.to_vec(),
            counterparty_node_id: channel.peer_node_id(),
            amount_sat: VALUE_SAT,
            announced,
            max_fee_sat: 0,
        };
        let added = self
            .signer
            .add_channel_intent(intent, NOW)
            .expect("the scene is honest");
        self.keep(&added.records);
    }

    /// Writes records.
    pub fn keep(&mut self, records: &[longhand_signer::LedgerRecord]) {
        self.disk
            .extend(records.iter().map(|record| record.as_bytes().to_vec()));
    }

    /// The phone stops and starts again from its disk.
    pub fn restart(&mut self) {
        let headers = self.signer.headers().clone();
        let filters = self.signer.filters().encode();
        self.signer = Signer::restore(&seed(), Network::Regtest, &LEDGER_KEY, &self.disk)
            .expect("the scene is honest");
        self.signer.set_headers(headers);
        let filters = Filters::decode(&filters).expect("its own bytes");
        self.signer.set_filters(filters);
        self.signer.set_hub(self.hub);
    }

    /// The host's own hub.
    pub fn set_hub(&mut self, node_id: PublicKey) {
        self.hub = Some(node_id);
        self.signer.set_hub(self.hub);
    }
}

impl Default for Phone {
    fn default() -> Phone {
        Phone::new()
    }
}

/// The HTLCs for the phone in a commitment that an operation has, or that the host says it holds in this channel.
fn incoming(keys_id: &[u8; 32], op: &Op) -> Vec<Htlc> {
    let of = |commitment: &CommitmentTransaction, phones_commitment: bool| {
        let htlcs = commitment.nondust_htlcs().iter();
        let htlcs = htlcs.filter(|htlc| htlc.offered != phones_commitment);
        let htlc = |htlc: &HTLCOutputInCommitment| Htlc {
            incoming: true,
            amount_msat: htlc.amount_msat,
            cltv_expiry: htlc.cltv_expiry,
            payment_hash: htlc.payment_hash.0,
        };
        htlcs.map(htlc).collect()
    };
    match op {
        Op::ValidateHolderCommitment(op) => {
            let read = HolderCommitmentTransaction::read(&mut &op.commitment[..]);
            read.map_or_else(|_| Vec::new(), |commitment| of(&commitment, true))
        }
        Op::SignCounterpartyCommitment(op) => {
            let read = CommitmentTransaction::read(&mut &op.commitment[..]);
            read.map_or_else(|_| Vec::new(), |commitment| of(&commitment, false))
        }
        Op::GetPreimage(op) => {
            let said = op.htlcs.iter();
            let said = said.filter(|said| said.channel_keys_id == keys_id[..]);
            let htlc = |said: &ClaimableHtlc| Htlc {
                incoming: true,
                amount_msat: said.amount_msat,
                cltv_expiry: said.cltv_expiry,
                payment_hash: op.payment_hash[..].try_into().unwrap_or_default(),
            };
            said.map(htlc).collect()
        }
        _ => Vec::new(),
    }
}

/// The rule that refused.
pub fn rule(refusal: &Refusal) -> Rule {
    refusal.rule.parse().expect("the scene is honest")
}

/// Both sides of one channel.
pub struct Channel {
    /// For LDK.
    pub secp: Secp256k1<All>,
    /// The phone's.
    pub parameters: ChannelTransactionParameters,
    /// The peer's keys.
    pub peer: InMemorySigner,
    /// The peer's.
    pub peer_parameters: ChannelTransactionParameters,
    /// The phone's first per-commitment points.
    pub phone_points: Vec<PublicKey>,
}

impl Channel {
    /// With anchors, as the nodes open them.
    pub fn new(phone: &mut Phone) -> Channel {
        Channel::of_type(
            phone,
            ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
        )
    }

    /// Of another type.
    pub fn of_type(phone: &mut Phone, channel_type_features: ChannelTypeFeatures) -> Channel {
        let nothing = OutPoint {
            txid: Txid::all_zeros(),
            index: 0,
        };
        let mut channel = Channel::funded_by(phone, channel_type_features, nothing);
        let txid = funding_transaction(&channel.parameters).compute_txid();
        let funding = Some(OutPoint { txid, index: 0 });
        channel.parameters.funding_outpoint = funding;
        channel.peer_parameters.funding_outpoint = funding;
        channel
    }

    /// With this funding output.
    pub fn funded_by(
        phone: &mut Phone,
        channel_type_features: ChannelTypeFeatures,
        funding: OutPoint,
    ) -> Channel {
        let secp = Secp256k1::new();
        let new = NewChannelKeys {
            channel_keys_id: KEYS_ID.to_vec(),
            points: 20,
        };
        let Ok(Answer::NewChannelKeys(keys)) = phone.ask_on(&[], Op::NewChannelKeys(new)) else {
            panic!()
        };
        let peer = KeysManager::new(&[8; 32], 1, 1, true).derive_channel_keys(&[9; 32]);
        let parameters = ChannelTransactionParameters {
            holder_pubkeys: Readable::read(&mut &keys.public_keys[..])
                .expect("the scene is honest"),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: false,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: peer.pubkeys(&secp),
                selected_contest_delay: 288,
            }),
            funding_outpoint: Some(funding),
            splice_parent_funding_txid: None,
            channel_type_features,
            channel_value_satoshis: VALUE_SAT,
        };
        let peer_parameters = ChannelTransactionParameters {
            holder_pubkeys: peer.pubkeys(&secp),
            holder_selected_contest_delay: 288,
            is_outbound_from_holder: true,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: parameters.holder_pubkeys.clone(),
                selected_contest_delay: 144,
            }),
            ..parameters.clone()
        };
        let phone_points = keys
            .points
            .iter()
            .map(|point| PublicKey::from_slice(point).expect("the scene is honest"))
            .collect();
        Channel {
            secp,
            parameters,
            peer,
            peer_parameters,
            phone_points,
        }
    }

    /// The operation that sets it up.
    pub fn setup(&self) -> Op {
        self.setup_with(&self.parameters)
    }

    /// Of a channel with the same peer.
    pub fn setup_with(&self, parameters: &ChannelTransactionParameters) -> Op {
        Op::SetupChannel(SetupChannel {
            parameters: parameters.encode(),
            counterparty_node_id: self.peer_node_id().serialize().to_vec(),
            opening_id: match parameters.is_outbound_from_holder {
                true => OPENING.to_vec(),
                false => Vec::new(),
            },
            terms: Some(TERMS),
        })
    }

    /// The peer's node id.
    pub fn peer_node_id(&self) -> PublicKey {
        self.peer.pubkeys(&self.secp).funding_pubkey
    }

    /// Its id.
    pub fn id(&self) -> ChannelId {
        let funding = self.parameters.funding_outpoint;
        ChannelId::v1_from_funding_outpoint(funding.expect("a whole channel"))
    }

    /// The phone's commitment number `step` (0 is the first), signed by the peer.
    pub fn holder(
        &self,
        step: u64,
        to_phone_sat: u64,
        htlcs: &[Htlc],
    ) -> HolderCommitmentTransaction {
        let htlcs: Vec<_> = htlcs.iter().map(|htlc| htlc.on(true)).collect();
        let spent: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        let commitment = CommitmentTransaction::new(
            FIRST - step,
            &self.phone_points[step as usize],
            to_phone_sat,
            VALUE_SAT - 10_000 - to_phone_sat - spent,
            1000,
            htlcs,
            &self.parameters.as_holder_broadcastable(),
            &self.secp,
        );
        self.signed(commitment)
    }

    /// A commitment of the phone's, signed by the peer.
    pub fn signed(&self, commitment: CommitmentTransaction) -> HolderCommitmentTransaction {
        let (signature, htlc_signatures) = self
            .peer
            .sign_counterparty_commitment(
                &self.peer_parameters,
                &commitment,
                vec![],
                vec![],
                &self.secp,
            )
            .expect("the scene is honest");
        let ours = self.parameters.holder_pubkeys.funding_pubkey;
        HolderCommitmentTransaction::new(
            commitment,
            signature,
            htlc_signatures,
            &ours,
            &self.peer_parameters.holder_pubkeys.funding_pubkey,
        )
    }

    /// The peer's commitment number `step`, which the phone is to sign.
    pub fn theirs(&self, step: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> CommitmentTransaction {
        let htlcs: Vec<_> = htlcs.iter().map(|htlc| htlc.on(false)).collect();
        let spent: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        CommitmentTransaction::new(
            FIRST - step,
            &self
                .peer
                .get_per_commitment_point(FIRST - step, &self.secp)
                .expect("the scene is honest"),
            VALUE_SAT - 10_000 - to_phone_sat - spent,
            to_phone_sat,
            1000,
            htlcs,
            &self.parameters.as_counterparty_broadcastable(),
            &self.secp,
        )
    }

    /// The peer's commitment without HTLCs.
    pub fn theirs_at(
        &self,
        step: u64,
        feerate_sat_per_kw: u32,
        to_phone_sat: u64,
        to_peer_sat: u64,
    ) -> CommitmentTransaction {
        let point = self.peer.get_per_commitment_point(FIRST - step, &self.secp);
        CommitmentTransaction::new(
            FIRST - step,
            &point.expect("the scene is honest"),
            to_peer_sat,
            to_phone_sat,
            feerate_sat_per_kw,
            Vec::new(),
            &self.parameters.as_counterparty_broadcastable(),
            &self.secp,
        )
    }

    /// The phone's commitment without HTLCs, signed by the peer.
    pub fn holder_at(
        &self,
        step: u64,
        feerate_sat_per_kw: u32,
        to_phone_sat: u64,
        to_peer_sat: u64,
    ) -> HolderCommitmentTransaction {
        self.signed(CommitmentTransaction::new(
            FIRST - step,
            &self.phone_points[step as usize],
            to_phone_sat,
            to_peer_sat,
            feerate_sat_per_kw,
            Vec::new(),
            &self.parameters.as_holder_broadcastable(),
            &self.secp,
        ))
    }

    /// The peer's secret of its commitment number `step`.
    pub fn revocation(&self, step: u64) -> Op {
        let secret = self
            .peer
            .release_commitment_secret(FIRST - step)
            .expect("the scene is honest")
            .to_vec();
        Op::CounterpartyRevocation(CounterpartyRevocation {
            index: FIRST - step,
            secret,
        })
    }

    /// The operations of an update by the owner, an HTLC that it offers, say: commitment number `step` of the peer, then of the owner, each with
    /// the secret of the one before.
    pub fn owners_update(&self, step: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> [Op; 4] {
        [
            sign(&self.theirs(step, to_phone_sat, htlcs)),
            self.revocation(step - 1),
            validate(&self.holder(step, to_phone_sat, htlcs)),
            release(step - 1),
        ]
    }

    /// The operations of an update by the peer: commitment number `step` of the owner, then of the peer, each with the secret of the one before.
    pub fn peers_update(&self, step: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> [Op; 4] {
        [
            validate(&self.holder(step, to_phone_sat, htlcs)),
            release(step - 1),
            sign(&self.theirs(step, to_phone_sat, htlcs)),
            self.revocation(step - 1),
        ]
    }

    /// The owner funds it.
    pub fn outbound(phone: &mut Phone) -> Channel {
        let mut channel = Channel::new(phone);
        channel.fund();
        phone.intend_opening(&channel);
        channel
    }

    /// Delays the peer's outputs of its commitments.
    pub fn delay_peer(&mut self, blocks: u16) {
        self.parameters.holder_selected_contest_delay = blocks;
        let ours = self.peer_parameters.counterparty_parameters.as_mut();
        ours.expect("the scene is honest").selected_contest_delay = blocks;
    }

    /// Makes the owner its funder.
    pub fn fund(&mut self) {
        self.parameters.is_outbound_from_holder = true;
        self.peer_parameters.is_outbound_from_holder = false;
    }

    /// Sets the channel up with its first commitments on both sides.
    pub fn open(phone: &mut Phone) -> Channel {
        let channel = Channel::new(phone);
        phone.ask(channel.setup()).expect("the scene is honest");
        phone
            .ask(validate(&channel.holder(0, 400_000, &[])))
            .expect("the scene is honest");
        phone
            .ask(sign(&channel.theirs(0, 400_000, &[])))
            .expect("the scene is honest");
        channel
    }
}

/// An HTLC, seen by the phone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Htlc {
    /// Whether the peer offers it.
    pub incoming: bool,
    /// Its amount.
    pub amount_msat: u64,
    /// The height at which it expires.
    pub cltv_expiry: u32,
    /// Its payment hash.
    pub payment_hash: [u8; 32],
}

impl Htlc {
    /// The peer offers it.
    pub fn incoming(payment_hash: [u8; 32], amount_msat: u64) -> Htlc {
        Htlc {
            incoming: true,
            amount_msat,
            cltv_expiry: 500,
            payment_hash,
        }
    }

    /// The phone offers it.
    pub fn outgoing(payment_hash: [u8; 32], amount_msat: u64) -> Htlc {
        Htlc {
            incoming: false,
            ..Htlc::incoming(payment_hash, amount_msat)
        }
    }

    fn on(&self, phones_commitment: bool) -> HTLCOutputInCommitment {
        HTLCOutputInCommitment {
            offered: self.incoming != phones_commitment,
            amount_msat: self.amount_msat,
            cltv_expiry: self.cltv_expiry,
            payment_hash: PaymentHash(self.payment_hash),
            transaction_output_index: None,
        }
    }
}

/// The operation that validates a commitment of the phone.
pub fn validate(commitment: &HolderCommitmentTransaction) -> Op {
    let (commitment, outbound_preimages) = (commitment.encode(), Vec::new());
    Op::ValidateHolderCommitment(ValidateHolderCommitment {
        commitment,
        outbound_preimages,
    })
}

/// The operation that signs a commitment of the peer.
pub fn sign(commitment: &CommitmentTransaction) -> Op {
    let commitment = commitment.encode();
    Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
        commitment,
        ..Default::default()
    })
}

/// Asks for the secret of the phone's commitment number `step`.
pub fn release(step: u64) -> Op {
    Op::ReleaseSecret(ReleaseSecret {
        index: FIRST - step,
    })
}

/// The operation that signs a commitment of the phone for broadcast.
pub fn sign_holder(commitment: &HolderCommitmentTransaction) -> Op {
    Op::SignHolderCommitment(SignHolderCommitment {
        commitment: commitment.encode(),
    })
}
