//! A phone for nodes of this process: its engine with the ledger in memory, attached to a node without a link.
//!
//! It answers as the owner's phone does, and disappears, dies or takes its time when a test has it do so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network};
use lightning_invoice::Bolt11Invoice;
use longhand_node::{SignerAway, SignerTransport};
use longhand_proto::command::{CreateInvoice, OpenChannel, Register, SendOnchain};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerOp, SignerReply};
use longhand_signer::{
    ChannelIntent, InvoiceRequest, LedgerRecord, PaymentIntent, Recorded, Refused, Seed, Signer,
};
use tokio::sync::Notify;

use crate::clock::unix_s;

/// Created with a phone's ledger.
pub const LEDGER_KEY: [u8; 32] = [7; 32];

/// The seed of the phone with this number.
pub fn seed(number: u8) -> Seed {
    Seed::from_entropy(&[number; 16]).unwrap()
}

/// The registration of the phone with this number: its node's public keys.
pub fn registration(number: u8) -> Register {
    engine(number).register(0)
}

fn engine(number: u8) -> Signer {
    Signer::new(&seed(number), Network::Regtest, &LEDGER_KEY).unwrap()
}

struct State {
    engine: Signer,
    /// Durable.
    ledger: Vec<LedgerRecord>,
    /// Created with the ledger.
    ledger_key: [u8; 32],
}

/// The moment in which a phone dies.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The batch does not arrive.
    BeforeItIsRead,
    /// The ledger is written and the answer is not sent; the phone starts again from the ledger.
    AfterItIsKept,
}

/// The most that a payment on chain may cost.
const MAX_FEE_SAT: u64 = 20_000;

/// Picks operations.
pub type IsAsked = fn(&Op) -> bool;

/// An action of a test's, see [`Phone::at_a_preimage`].
pub type Action = Box<dyn FnOnce(&Phone) + Send>;

/// See the module.
pub struct Phone {
    seed: Seed,
    state: Mutex<State>,
    /// The time that its clock shows, when it stands still.
    now_unix_s: Option<u64>,
    is_away: AtomicBool,
    /// Counts batches; the one with this number (from 1) is lost, and the link with it, see [`Loss`].
    loss: Mutex<Option<(u64, Loss)>>,
    asked: AtomicU64,
    lost: Notify,
    at_a_preimage: Mutex<Option<Action>>,
    leaves_before: Mutex<Option<IsAsked>>,
    /// How long an answer takes to come, in milliseconds: there and back.
    pub round_trip_ms: AtomicU64,
    /// Every batch that was answered.
    pub batches: Mutex<Vec<SignerBatch>>,
}

impl Phone {
    /// The phone with this number, on the system's clock.
    pub fn new(number: u8) -> Arc<Phone> {
        Arc::new(Phone::with_clock(number, None))
    }

    /// The same, on a clock that stands still.
    pub fn at(number: u8, now_unix_s: u64) -> Phone {
        Phone::with_clock(number, Some(now_unix_s))
    }

    fn with_clock(number: u8, now_unix_s: Option<u64>) -> Phone {
        Phone {
            seed: seed(number),
            state: Mutex::new(State {
                engine: engine(number),
                ledger: Vec::new(),
                ledger_key: LEDGER_KEY,
            }),
            now_unix_s,
            is_away: AtomicBool::new(false),
            loss: Mutex::default(),
            asked: AtomicU64::new(0),
            lost: Notify::new(),
            at_a_preimage: Mutex::default(),
            leaves_before: Mutex::default(),
            round_trip_ms: AtomicU64::new(0),
            batches: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Fuzz targets catch panics and go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that the phone's clock shows, in seconds since 1970.
    pub fn now_unix_s(&self) -> u64 {
        self.now_unix_s.unwrap_or_else(unix_s)
    }

    /// The seed of its keys.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Its node's public keys.
    pub fn register(&self) -> Register {
        self.state().engine.register(0)
    }

    /// Its ledger, record by record.
    pub fn ledger(&self) -> Vec<Vec<u8>> {
        let state = self.state();
        let records = state.ledger.iter();
        records.map(|record| record.as_bytes().to_vec()).collect()
    }

    /// Starts the engine again from the ledger.
    pub fn restart(&self) {
        let ledger = self.ledger();
        let mut state = self.state();
        let key = state.ledger_key;
        let headers = state.engine.headers().clone();
        state.engine = Signer::restore(&self.seed, Network::Regtest, &key, ledger).unwrap();
        state.engine.set_headers(headers);
    }

    /// The phone is restored from its words: with an empty ledger.
    pub fn lose_its_ledger(&self) {
        let mut state = self.state();
        state.ledger = Vec::new();
        state.ledger_key[0] += 1;
        let key = state.ledger_key;
        state.engine = Signer::new(&self.seed, Network::Regtest, &key).unwrap();
    }

    /// A call of the owner's, durable when it returns.
    ///
    /// # Errors
    /// As the engine refuses it.
    pub fn own<T>(
        &self,
        call: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused>,
    ) -> Result<T, Refused> {
        let mut state = self.state();
        let done = call(&mut state.engine)?;
        state.ledger.extend(done.records);
        Ok(done.value)
    }

    /// The command by which the phone asks its node for an invoice.
    pub fn create_invoice(&self, asked: &InvoiceRequest) -> CreateInvoice {
        let payment_secret = self.state().engine.payment_secret(asked);
        CreateInvoice {
            payment_hash: asked.payment_hash.to_vec(),
            amount_msat: asked.amount_msat,
            description: asked.description.clone(),
            expiry_s: asked.expiry_s,
            payment_secret: payment_secret.unwrap_or_default().to_vec(),
        }
    }

    /// The owner asks for this payment: the intent is on record before the command is sent.
    pub fn intend_send(&self, send: &SendOnchain) {
        let now = self.now_unix_s();
        let SendOnchain {
            id,
            address,
            amount_sat,
            ..
        } = send;
        self.own(|engine| engine.add_onchain_intent(id, address, *amount_sat, MAX_FEE_SAT, now))
            .unwrap();
    }

    /// The owner asks for this opening with `peer`.
    pub fn intend_open(&self, open: &OpenChannel, peer: PublicKey) {
        let intent = ChannelIntent::Open {
            id: open.id.clone(),
            counterparty_node_id: peer,
            amount_sat: open.amount_sat,
            announced: open.announced,
            max_fee_sat: MAX_FEE_SAT,
        };
        let now = self.now_unix_s();
        self.own(|engine| engine.add_channel_intent(intent, now))
            .unwrap();
    }

    /// The owner asks to close a channel to the node's wallet.
    pub fn intend_close(&self, channel_id: &[u8], force: bool) {
        let intent = ChannelIntent::Close {
            channel_id: channel_id.to_vec(),
            force,
            address: String::new(),
        };
        let now = self.now_unix_s();
        self.own(|engine| engine.add_channel_intent(intent, now))
            .unwrap();
    }

    /// The owner asks to pay this invoice, at any fee up to its amount: the intent is on record before the command is sent. What was
    /// paid is not recorded again.
    pub fn intend_pay(&self, bolt11: &str) {
        let invoice: Bolt11Invoice = bolt11.parse().unwrap();
        let hash = invoice.payment_hash().0;
        let amount_msat = invoice.amount_milli_satoshis().unwrap();
        let now = self.now_unix_s();
        let is_paid = |it: &PaymentIntent| it.payment_hash == hash && it.preimage.is_some();
        if self.state().engine.intents().any(is_paid) {
            return;
        }
        self.own(|engine| engine.add_intent(hash, amount_msat, amount_msat, u64::MAX, now))
            .unwrap();
    }

    /// Answers one operation.
    pub fn answer(&self, op: Op) -> Answer {
        let op = SignerOp {
            op: Some(op),
            ..SignerOp::default()
        };
        let reply = self.handle(&SignerBatch { ops: vec![op] });
        let answer = reply.answers.into_iter().next();
        answer.and_then(|answer| answer.answer).unwrap()
    }

    /// Answers a batch, durably. Whoever calls this is a link of its own: nothing is lost or late here.
    pub fn handle(&self, batch: &SignerBatch) -> SignerReply {
        let now = self.now_unix_s();
        let mut state = self.state();
        let outcome = state.engine.handle(batch, now);
        state.ledger.extend(outcome.records);
        outcome.reply
    }

    /// All that the engine has refused, for a person.
    pub fn refusals(&self) -> String {
        format!("{:?}", self.state().engine.refusals())
    }

    /// Whether it has answered an operation like this.
    pub fn was_asked(&self, asked: IsAsked) -> bool {
        let batches = self.batches.lock().unwrap();
        batches.iter().any(|batch| is_in(batch, asked))
    }
}

/// How it disappears.
impl Phone {
    /// Answers nothing more: batches fail as if the link had dropped.
    pub fn leave(&self) {
        self.is_away.store(true, Ordering::SeqCst);
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.is_away.store(false, Ordering::SeqCst);
    }

    /// Whether it answers nothing.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::SeqCst)
    }

    /// Leaves when it is next asked an operation like this, before it has read it.
    pub fn leave_before(&self, asked: IsAsked) {
        *self.leaves_before.lock().unwrap() = Some(asked);
    }

    /// The batch after the next `batches - 1` is lost, and the link with it.
    pub fn lose(&self, batches: u64, loss: Loss) {
        let at = self.asked.load(Ordering::SeqCst) + batches;
        *self.loss.lock().unwrap() = Some((at, loss));
    }

    /// Returns when the link was lost, see [`Phone::lose`].
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// The action takes place once the next preimage is given away, before the node has it.
    pub fn at_a_preimage(&self, action: Action) {
        *self.at_a_preimage.lock().unwrap() = Some(action);
    }

    fn leaves_at(&self, batch: &SignerBatch) -> bool {
        let mut leaves_before = self.leaves_before.lock().unwrap();
        let leaves = leaves_before.take_if(|asked| is_in(batch, *asked));
        leaves.is_some()
    }
}

fn is_in(batch: &SignerBatch, asked: IsAsked) -> bool {
    batch.ops.iter().filter_map(|op| op.op.as_ref()).any(asked)
}

#[async_trait]
impl SignerTransport for Phone {
    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        self.state().engine.headers().locator()
    }

    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        if self.is_away() {
            return Err(SignerAway);
        }
        if self.leaves_at(&batch) {
            self.leave();
            return Err(SignerAway);
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let loss = self.loss.lock().unwrap().take_if(|(at, _)| *at == number);
        if matches!(loss, Some((_, Loss::BeforeItIsRead))) {
            self.lost.notify_one();
            return Err(SignerAway);
        }
        let round_trip_ms = self.round_trip_ms.load(Ordering::SeqCst);
        if round_trip_ms > 0 {
            tokio::time::sleep(Duration::from_millis(round_trip_ms)).await;
        }
        let reply = self.handle(&batch);
        if matches!(loss, Some((_, Loss::AfterItIsKept))) {
            self.restart();
            self.lost.notify_one();
            return Err(SignerAway);
        }
        self.batches.lock().unwrap().push(batch);
        let mut answers = reply.answers.iter();
        if answers.any(|answer| matches!(answer.answer, Some(Answer::Preimage(_))))
            && let Some(action) = self.at_a_preimage.lock().unwrap().take()
        {
            action(self);
        }
        Ok(reply)
    }
}
