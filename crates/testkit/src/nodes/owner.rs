//! An owner: a node with its phone.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::{Network, OutPoint, ScriptBuf};
use longhand_chain::devnet::Devnet;
use longhand_node::{Node, Overview};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{Channels, CloseChannel, ListChannels, Payment};
use longhand_signer::keys::Keys as SeedKeys;
use longhand_signer::{Account, InvoiceRequest, Keychain};

use super::commands::{ask, pay, try_ask};
use super::unique_id;
use crate::clock::unix_s;
use crate::phone::Phone;

/// A node with its phone.
pub struct Owner {
    /// Of the owner and the node.
    pub name: String,
    /// Attached by [`Owner::attach`].
    pub phone: Arc<Phone>,
    /// The owner's node.
    pub node: Node,
}

impl Owner {
    /// The phone attaches; it answers again.
    pub fn attach(&self) {
        self.phone.come_back();
        self.node.attach(self.phone.clone());
    }

    /// Attaches again each time the link is lost, until the returned task is dropped.
    pub fn keep_coming_back(&self) -> tokio::task::JoinSet<()> {
        let (phone, node) = (self.phone.clone(), self.node.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            loop {
                phone.lost().await;
                node.signer_lost();
                node.attach(phone.clone());
            }
        });
        tasks
    }

    /// The node's state.
    pub async fn overview(&self) -> Overview {
        self.node.overview().await.unwrap()
    }

    /// The node's channels.
    pub async fn channels(&self) -> Channels {
        match ask(&self.node, Kind::ListChannels(ListChannels {})).await {
            Reply::Channels(channels) => channels,
            reply => panic!("{reply:?}"),
        }
    }

    /// An invoice that the phone has signed.
    pub async fn invoice(&self, amount_msat: u64) -> String {
        let mut entropy = [0; 32];
        entropy[..16].copy_from_slice(&unique_id());
        entropy[16..].fill(self.name.len() as u8);
        let new = self
            .phone
            .own(|engine| engine.new_payment(amount_msat, entropy, unix_s()));
        let asked = InvoiceRequest {
            payment_hash: new.unwrap(),
            amount_msat,
            description: "coffee".into(),
            expiry_s: 3600,
        };
        let create = self.phone.create_invoice(&asked);
        let unsigned = loop {
            match try_ask(&self.node, Kind::CreateInvoice(create.clone())).await {
                Reply::UnsignedInvoice(unsigned) => break unsigned,
                Reply::Error(error) if error.action() == Action::Retry => {}
                reply => panic!("{reply:?}"),
            }
        };
        let signed = self
            .phone
            .own(|engine| engine.finish_invoice(&unsigned, &asked, unix_s()));
        signed.unwrap().to_string()
    }

    /// Pays, and waits until the payment has succeeded or failed.
    pub async fn pay(&self, bolt11: &str) -> Payment {
        self.phone.intend_pay(bolt11);
        pay(&self.node, bolt11).await
    }

    /// Closes a channel.
    pub async fn close(&self, channel_id: &[u8], force: bool) {
        self.phone.intend_close(channel_id, force);
        let close = CloseChannel {
            channel_id: channel_id.to_vec(),
            force,
            ..CloseChannel::default()
        };
        ask(&self.node, Kind::CloseChannel(close)).await;
    }

    /// The coins that any wallet finds in the chain which is restored from the phone's words: accounts of BIP 84, up to
    /// BIP 44's gap limit.
    pub fn found_sat(&self, devnet: &Devnet) -> u64 {
        const GAP: u32 = 20;
        let blocks = (0..=devnet.tip().height).filter_map(|height| devnet.hash_at(height));
        let mut paid: HashMap<ScriptBuf, Vec<OutPoint>> = HashMap::new();
        for tx in blocks.flat_map(|hash| devnet.block(&hash).unwrap().txdata) {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(tx.output) {
                let outpoints = paid.entry(output.script_pubkey).or_default();
                outpoints.push(OutPoint { txid, vout });
            }
        }
        let keys = SeedKeys::new(self.phone.seed(), Network::Regtest).unwrap();
        let mut found_sat = 0;
        for keychain in [Keychain::External, Keychain::Internal] {
            let (mut index, mut end) = (0, GAP);
            while index < end {
                let script = keys.script(Account::Bip84, keychain, index).unwrap();
                index += 1;
                if let Some(outpoints) = paid.get(&script) {
                    end = index + GAP;
                    let unspent = outpoints.iter().filter_map(|it| devnet.unspent(it));
                    found_sat += unspent.map(|output| output.value.to_sat()).sum::<u64>();
                }
            }
        }
        found_sat
    }
}
