//! A node's whole life: coins, money sent on chain, a channel with the hub, a payment each way, the close of the
//! channel, and its sweeps. From some point on the phone lies.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Address;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, Node, PeerStream};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::*;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::{CommitmentSignatures, SignerAnswer};
use longhand_signer::InvoiceRequest;
use longhand_testkit::phone::Phone;
use tokio::io::duplex;
use tokio::time::timeout;

use super::{Liar, Lie, Script};
use crate::audited::PHONE;
use crate::chain::SmallChain;
use crate::node::{self, PATIENCE};

const COINS_SAT: u64 = 2_000_000;
const CHANNEL_SAT: u64 = 1_000_000;
const TO_HUB_MSAT: u64 = 300_000_000;
const TO_OWNER_MSAT: u64 = 50_000_000;
const SENT_SAT: u64 = 100_000;
/// Virtual time, in which the nodes finish all their work.
const A_MOMENT: Duration = Duration::from_millis(500);
/// Enough for a channel to be usable, and for delayed outputs to be swept.
const BLOCKS: u32 = 6;
const DELAY: u32 = 2_100;

struct Life {
    chain: SmallChain,
    hub: Node,
    owner: Node,
    liar: Arc<Liar>,
    now_unix_s: u64,
}

/// Tries one input.
pub(super) fn run(script: Script) {
    node::run(|| async {
        let life = Life::begin(script.good, script.lies).await;
        life.live(script.by_force).await;
        node::is_sound(&life.owner).await;
        node::is_sound(&life.hub).await;
        life.owner.stop().await;
        life.hub.stop().await;
    });
}

/// Reaches the hub.
struct ToHub(Node);

#[async_trait]
impl Dialer for ToHub {
    async fn dial(&self, to: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        if to != self.0.node_id() {
            return Err(std::io::Error::other("no such peer"));
        }
        let (near, far) = duplex(64 * 1024);
        self.0.accept(Box::new(far));
        Ok(Box::new(near))
    }
}

impl Life {
    async fn begin(good: u32, lies: Vec<Lie>) -> Life {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
        let now_unix_s = now.expect("a clock").as_secs();
        let chain = SmallChain::new();
        let services = node::services(chain.clone(), node::Line::default());
        let hub = node::hub(services).await;
        let services = node::services(chain.clone(), ToHub(hub.clone()));
        let owner = node::owner_of(node::registration(), hub.node_id(), services).await;
        Life {
            chain,
            owner: owner.expect("a node starts"),
            hub,
            liar: Liar::new(Phone::at(PHONE, now_unix_s), good, lies),
            now_unix_s,
        }
    }

    /// Steps that a lie prevents are left out.
    async fn live(&self, by_force: bool) {
        let Some(Reply::Address(own)) = self.ask(Kind::NewAddress(NewAddress {})).await else {
            return;
        };
        let script = Address::from_str(&own.address).expect("an address");
        let script = script.assume_checked().script_pubkey();
        self.chain.pay(script.clone(), COINS_SAT);
        self.mine(0).await;
        let send = SendOnchain {
            id: vec![1; 16],
            address: own.address,
            amount_sat: SENT_SAT,
            all: false,
            feerate_sat_per_kw: 1_000,
        };
        self.liar.phone.intend_send(&send);
        self.ask(Kind::SendOnchain(send)).await;
        self.mine(0).await;
        let Some(channel_id) = self.open().await else {
            return;
        };
        if let Ok(bolt11) = self.hub.invoice(TO_HUB_MSAT, "tea", 3600).await {
            self.liar.phone.intend_pay(&bolt11);
            self.ask(Kind::Pay(pay(bolt11))).await;
        }
        self.be_paid().await;
        self.ask(Kind::CloseChannel(CloseChannel {
            channel_id,
            force: by_force,
            ..CloseChannel::default()
        }))
        .await;
        self.mine(BLOCKS).await;
        self.mine(DELAY).await;
        // Outputs whose delay is over are swept with the next block.
        self.mine(0).await;
        self.mine(BLOCKS).await;
    }

    async fn open(&self) -> Option<Vec<u8>> {
        let open = OpenChannel {
            id: vec![2; 16],
            counterparty_node_id: self.hub.node_id().serialize().to_vec(),
            amount_sat: CHANNEL_SAT,
            ..OpenChannel::default()
        };
        let phone = &self.liar.phone;
        phone.intend_open(&open, self.hub.node_id());
        let opened = match self.ask(Kind::OpenChannel(open)).await? {
            Reply::OpenedChannel(opened) => opened,
            _ => return None,
        };
        self.mine(BLOCKS).await;
        Some(opened.channel_id)
    }

    async fn be_paid(&self) -> Option<()> {
        let entropy = [3; 32];
        let now = self.now_unix_s;
        let phone = &self.liar.phone;
        let new = phone.own(|engine| engine.new_payment(TO_OWNER_MSAT, entropy, now));
        let asked = InvoiceRequest {
            payment_hash: new.ok()?,
            amount_msat: TO_OWNER_MSAT,
            description: "coffee".into(),
            expiry_s: 3600,
        };
        let create = phone.create_invoice(&asked);
        let Reply::UnsignedInvoice(unsigned) = self.ask(Kind::CreateInvoice(create)).await? else {
            return None;
        };
        let signed = phone.own(|engine| engine.finish_invoice(&unsigned, &asked, now));
        let bolt11 = signed.ok()?.to_string();
        let command = Command {
            command: Some(Kind::Pay(pay(bolt11))),
        };
        let paid = timeout(PATIENCE, self.hub.command(command)).await;
        self.settle().await;
        paid.ok().map(drop)
    }

    /// Gives a command with the phone attached: a lie may have detached it.
    async fn ask(&self, kind: Kind) -> Option<Reply> {
        self.owner.attach(self.liar.clone());
        let command = Command {
            command: Some(kind),
        };
        let reply = timeout(PATIENCE, self.owner.command(command)).await;
        self.settle().await;
        reply.ok()?.reply
    }

    async fn mine(&self, empty: u32) {
        self.chain.mine(empty);
        self.owner.attach(self.liar.clone());
        self.settle().await;
    }

    async fn settle(&self) {
        tokio::time::sleep(A_MOMENT).await;
    }
}

fn pay(bolt11: String) -> Pay {
    Pay {
        bolt11,
        amount_msat: 0,
        max_fee_msat: Some(10_000),
    }
}

/// A life has at least this many.
const BATCHES: u32 = 15;

/// A lie after every number of good answers, as long as there are some to come.
pub(super) fn seeds() -> Vec<Script> {
    let lie = |answer| Lie {
        answers: vec![SignerAnswer {
            answer: Some(answer),
        }],
        ..Lie::default()
    };
    let flip = Lie {
        at: 40,
        xor: 1,
        ..Lie::default()
    };
    let signatures = CommitmentSignatures {
        signature: vec![1; 64],
        htlc_signatures: vec![vec![2; 64]; 3],
    };
    let lies = [
        flip,
        lie(Answer::Psbt(b"psbt\xff\x01\x00".to_vec())),
        lie(Answer::Transaction(vec![2, 0, 0, 0, 0, 1])),
        lie(Answer::CommitmentSignatures(signatures)),
        Lie {
            away: true,
            ..Lie::default()
        },
    ];
    let mut scripts = Vec::new();
    for good in 0..BATCHES {
        scripts.push(Script {
            lies: vec![lies[good as usize % lies.len()].clone()],
            life: true,
            good,
            by_force: good % 2 == 0,
        });
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the life itself: without a lie it goes all the way.
    #[test]
    fn without_a_lie_all_goes_well() {
        for by_force in [false, true] {
            node::run(|| async {
                let life = Life::begin(0, Vec::new()).await;
                life.live(by_force).await;
                let payments = life.ask(Kind::ListPayments(ListPayments::default())).await;
                let Some(Reply::Payments(Payments { payments, .. })) = payments else {
                    panic!("no payments")
                };
                let succeeded = payments.iter().filter(|payment| {
                    payment.state() == longhand_proto::command::payment::State::Succeeded
                });
                assert_eq!(succeeded.count(), 2, "{payments:?}");
                let overview = life.owner.overview().await.unwrap();
                assert_eq!((overview.channels, overview.closing_sat), (0, 0));
                let paid_sat = (TO_HUB_MSAT - TO_OWNER_MSAT) / 1_000;
                let fees_sat = COINS_SAT - paid_sat - overview.onchain_sat;
                assert!(fees_sat < 20_000, "{fees_sat}");
                assert!(overview.signer_batches >= BATCHES.into());
            });
        }
    }
}
