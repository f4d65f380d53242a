//! LDK's signer traits for a node: one type for local keys and for those on a phone.
//!
//! - `channel_signer.rs`: the signer of one channel.
//! - `remote.rs`: the keys on a phone, composed of the parts below.
//! - `desk.rs`: operations that the phone is asked for, and its answers.
//! - `durable_ops.rs`: those that are stored until they are answered.
//! - `pool.rs`: keys of channels, and of channels to come; `channel_keys.rs`, `points.rs`: one channel's.
//! - `setups.rs`: channels' parameters, which the phone must have first.
//! - `incoming.rs`: the incoming HTLCs of commitments.
//! - `onions.rs`, `handshakes.rs`: shared secrets that LDK cannot wait for.
//! - `justice.rs`: punishes a breach with the delegated secret.
//! - `trimmed.rs`: HTLCs that commitments have no outputs for.
//! - `verify.rs`: verifies the phone's signatures.

mod channel_keys;
mod channel_signer;
mod closes;
pub(crate) mod desk;
mod durable_ops;
pub(crate) mod handshakes;
pub(crate) mod incoming;
mod justice;
mod onions;
pub(crate) use onions::{IncomingOnion, OpenHtlcs};
mod points;
mod pool;
pub(crate) mod remote;
mod setups;
#[cfg(test)]
mod testing;
pub(crate) mod trimmed;
pub(crate) mod verify;

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, Signature};
use bitcoin::secp256k1::{All, PublicKey, Scalar, Secp256k1, schnorr};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, absolute::LockTime, consensus};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::ln::script::ShutdownScript;
use lightning::offers::invoice::UnsignedBolt12Invoice;
use lightning::sign::{
    EntropySource, KeysManager, NodeSigner, OutputSpender, PeerStorageKey, RandomBytes,
    ReceiveAuthKey, Recipient, SignerProvider, SpendableOutputDescriptor,
};
use lightning::util::ser::Writeable;
use lightning_invoice::RawBolt11Invoice;
use longhand_proto::signer::sign_gossip::Message as Gossip;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignGossip, SpendOutputs};

use crate::api::{NodeError, Registration};
use crate::store::journal::lock;
use crate::wallet::SharedWallet;

pub(crate) use channel_signer::ChannelSigner;
use channel_signer::RemoteSigner;
use remote::Remote;

/// Placeholder for the signature of a `channel_update` until the message gate has the phone's: LDK would `unwrap` an error.
const PLACEHOLDER: [u8; 64] = [1; 64];

/// See the module.
pub(crate) struct KeyRing {
    kind: Kind,
    wallet: SharedWallet,
    entropy: RandomBytes,
}

enum Kind {
    Local(Box<KeysManager>),
    Remote(Arc<Remote>, Delegated),
}

/// Keys of LDK's `NodeSigner` that an owner has delegated, since they cannot spend.
struct Delegated {
    inbound_payment_key: [u8; 32],
    peer_storage_key: [u8; 32],
    receive_auth_key: [u8; 32],
}

impl KeyRing {
    /// With local keys.
    pub fn local(keys: KeysManager, wallet: SharedWallet) -> Result<KeyRing, NodeError> {
        Ok(KeyRing {
            kind: Kind::Local(Box::new(keys)),
            wallet,
            entropy: entropy()?,
        })
    }

    /// With keys on a phone.
    ///
    /// # Errors
    /// [`NodeError::Load`] when a key in the registration has another length than 32 bytes.
    pub fn remote(
        remote: Arc<Remote>,
        registration: &Registration,
        wallet: SharedWallet,
    ) -> Result<KeyRing, NodeError> {
        let key = |bytes: &[u8]| {
            <[u8; 32]>::try_from(bytes)
                .map_err(|_| NodeError::Load("a key in the registration is not 32 bytes".into()))
        };
        let delegated = Delegated {
            inbound_payment_key: key(&registration.inbound_payment_key)?,
            peer_storage_key: key(&registration.peer_storage_key)?,
            receive_auth_key: key(&registration.receive_auth_key)?,
        };
        Ok(KeyRing {
            kind: Kind::Remote(remote, delegated),
            wallet,
            entropy: entropy()?,
        })
    }

    /// The phone's keys; `None` with local keys.
    pub fn as_remote(&self) -> Option<&Arc<Remote>> {
        match &self.kind {
            Kind::Local(_) => None,
            Kind::Remote(remote, _) => Some(remote),
        }
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        match &self.kind {
            Kind::Local(keys) => id_of(keys),
            Kind::Remote(remote, _) => remote.node_id,
        }
    }
}

/// The id of a node with local keys ([`crate::Keys::Local`]): it follows from the seed alone, whether or not the node runs.
pub fn local_node_id(seed: &[u8; 32]) -> PublicKey {
    // Time goes only into what `KeysManager` draws at random.
    id_of(&KeysManager::new(seed, 0, 0, true))
}

fn id_of(keys: &KeysManager) -> PublicKey {
    keys.get_node_id(Recipient::Node).unwrap_or_else(|()| {
        // `KeysManager` fails only for phantom nodes.
        PublicKey::from_secret_key(&Secp256k1::new(), &keys.get_node_secret_key())
    })
}

fn entropy() -> Result<RandomBytes, NodeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| NodeError::Load(format!("the system gives no randomness: {error}")))?;
    Ok(RandomBytes::new(seed))
}

impl EntropySource for KeyRing {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.entropy.get_secure_random_bytes()
    }
}

impl NodeSigner for KeyRing {
    fn get_expanded_key(&self) -> ExpandedKey {
        match &self.kind {
            Kind::Local(keys) => keys.get_expanded_key(),
            Kind::Remote(_, delegated) => ExpandedKey::new(delegated.inbound_payment_key),
        }
    }

    fn get_peer_storage_key(&self) -> PeerStorageKey {
        match &self.kind {
            Kind::Local(keys) => keys.get_peer_storage_key(),
            Kind::Remote(_, delegated) => PeerStorageKey {
                inner: delegated.peer_storage_key,
            },
        }
    }

    fn get_receive_auth_key(&self) -> ReceiveAuthKey {
        match &self.kind {
            Kind::Local(keys) => keys.get_receive_auth_key(),
            Kind::Remote(_, delegated) => ReceiveAuthKey(delegated.receive_auth_key),
        }
    }

    fn get_node_id(&self, recipient: Recipient) -> Result<PublicKey, ()> {
        match recipient {
            Recipient::Node => Ok(self.node_id()),
            Recipient::PhantomNode => Err(()),
        }
    }

    /// A phone's secret must have been fetched before. LDK unwraps this while it reads an onion, and whoever made the onion
    /// may have put any key into it (a trampoline's). A secret that was not fetched is answered with random bytes: LDK then
    /// fails the HTLC, or the handshake, where an error would be a panic each time the HTLC is processed.
    fn ecdh(
        &self,
        recipient: Recipient,
        other_key: &PublicKey,
        tweak: Option<&Scalar>,
    ) -> Result<SharedSecret, ()> {
        match &self.kind {
            Kind::Local(keys) => keys.ecdh(recipient, other_key, tweak),
            // Only a blinded path has a tweak (BOLT 4), and no invoice of a phone's has one: its HTLC fails.
            Kind::Remote(remote, _) => {
                let secret = remote.shared_secret(other_key);
                let secret = secret.unwrap_or_else(|| self.get_secure_random_bytes());
                Ok(SharedSecret::from_bytes(secret))
            }
        }
    }

    fn sign_invoice(
        &self,
        invoice: &RawBolt11Invoice,
        recipient: Recipient,
    ) -> Result<RecoverableSignature, ()> {
        match &self.kind {
            Kind::Local(keys) => keys.sign_invoice(invoice, recipient),
            Kind::Remote(..) => Err(()),
        }
    }

    fn sign_bolt12_invoice(
        &self,
        invoice: &UnsignedBolt12Invoice,
    ) -> Result<schnorr::Signature, ()> {
        match &self.kind {
            Kind::Local(keys) => keys.sign_bolt12_invoice(invoice),
            Kind::Remote(..) => Err(()),
        }
    }

    fn sign_gossip_message(&self, msg: UnsignedGossipMessage) -> Result<Signature, ()> {
        let remote = match &self.kind {
            Kind::Local(keys) => return keys.sign_gossip_message(msg),
            Kind::Remote(remote, _) => remote,
        };
        let signed = msg.encode();
        let message = match msg {
            UnsignedGossipMessage::ChannelUpdate(_) => {
                return Signature::from_compact(&PLACEHOLDER).map_err(|_| ());
            }
            UnsignedGossipMessage::ChannelAnnouncement(msg) => {
                Gossip::ChannelAnnouncement(msg.encode())
            }
            UnsignedGossipMessage::NodeAnnouncement(msg) => Gossip::NodeAnnouncement(msg.encode()),
        };
        match remote.ask_node(Op::SignGossip(SignGossip {
            message: Some(message),
        })) {
            Some(Answer::Signature(bytes)) => {
                let signature = Signature::from_compact(&bytes).map_err(|_| ())?;
                verify::gossip(&signed, &signature, &remote.node_id).ok_or(())?;
                Ok(signature)
            }
            _ => Err(()),
        }
    }

    fn sign_message(&self, msg: &[u8]) -> Result<String, ()> {
        match &self.kind {
            Kind::Local(keys) => keys.sign_message(msg),
            Kind::Remote(..) => Err(()),
        }
    }
}

impl SignerProvider for KeyRing {
    type EcdsaSigner = ChannelSigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        match &self.kind {
            Kind::Local(keys) => keys.generate_channel_keys_id(inbound, user_channel_id),
            // Keys are reserved for a channel before LDK makes it.
            Kind::Remote(remote, _) => remote.keys_id_of(user_channel_id).unwrap_or_default(),
        }
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> ChannelSigner {
        match &self.kind {
            Kind::Local(keys) => {
                ChannelSigner::Local(Box::new(keys.derive_channel_signer(channel_keys_id)))
            }
            Kind::Remote(remote, _) => ChannelSigner::Remote(RemoteSigner {
                remote: Arc::clone(remote),
                keys_id: channel_keys_id,
            }),
        }
    }

    fn get_destination_script(&self, _: [u8; 32]) -> Result<ScriptBuf, ()> {
        Ok(lock(&self.wallet).unused_script())
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        let script = lock(&self.wallet).unused_script();
        script.try_into().map_err(|_| ())
    }
}

impl OutputSpender for KeyRing {
    fn spend_spendable_outputs(
        &self,
        descriptors: &[&SpendableOutputDescriptor],
        outputs: Vec<TxOut>,
        change_destination_script: ScriptBuf,
        feerate_sat_per_1000_weight: u32,
        locktime: Option<LockTime>,
        secp: &Secp256k1<All>,
    ) -> Result<Transaction, ()> {
        let remote = match &self.kind {
            Kind::Local(keys) => {
                return keys.spend_spendable_outputs(
                    descriptors,
                    outputs,
                    change_destination_script,
                    feerate_sat_per_1000_weight,
                    locktime,
                    secp,
                );
            }
            Kind::Remote(remote, _) => remote,
        };
        let (keychain, index) = lock(&self.wallet)
            .path_of(&change_destination_script)
            .ok_or(())?;
        // LDK gives them in another order with each call, and the phone's answer is found by the operation's content.
        let mut in_order = descriptors.to_vec();
        in_order.sort_by_key(|descriptor| descriptor.spendable_outpoint());
        let op = SpendOutputs {
            descriptors: in_order
                .iter()
                .map(|descriptor| descriptor.encode())
                .collect(),
            change_script: change_destination_script.to_bytes(),
            change_keychain: keychain,
            change_index: index,
            feerate_sat_per_kw: feerate_sat_per_1000_weight,
            locktime: locktime.map_or(0, |locktime| locktime.to_consensus_u32()),
        };
        match remote.ask_node(Op::SpendOutputs(op)) {
            Some(Answer::Transaction(bytes)) => {
                let tx = consensus::deserialize(&bytes).map_err(|_| ())?;
                check_sweep(&tx, descriptors, &change_destination_script).ok_or(())?;
                Ok(tx)
            }
            _ => Err(()),
        }
    }
}

/// Checks that a sweep spends the outputs that it was asked for, and pays only to `to`: LDK and the wallet rely on it.
fn check_sweep(
    tx: &Transaction,
    descriptors: &[&SpendableOutputDescriptor],
    to: &bitcoin::Script,
) -> Option<()> {
    let asked: HashSet<OutPoint> = descriptors
        .iter()
        .map(|descriptor| descriptor.spendable_outpoint().into_bitcoin_outpoint())
        .collect();
    let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    let pays_there = !tx.output.is_empty() && tx.output.iter().all(|out| *out.script_pubkey == *to);
    let is_right = asked == spent && pays_there;
    if !is_right {
        tracing::error!("the signer gave a sweep of something else; it was not sent");
    }
    is_right.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::testing::key;
    use super::*;
    use crate::store::journal::Journal;
    use crate::wallet::new_wallet;

    fn wallet() -> SharedWallet {
        Arc::new(Mutex::new(new_wallet()))
    }

    /// The keys of an owner, with none fetched.
    fn owners_ring(remote: &Arc<Remote>, wallet: SharedWallet) -> KeyRing {
        let registration = Registration {
            inbound_payment_key: vec![1; 32],
            peer_storage_key: vec![2; 32],
            receive_auth_key: vec![3; 32],
            ..Registration::default()
        };
        KeyRing::remote(remote.clone(), &registration, wallet).unwrap()
    }

    #[test]
    fn a_secret_that_was_not_fetched_is_answered_with_random_bytes() {
        let (wallet, journal) = (wallet(), Arc::new(Journal::default()));
        let remote = Arc::new(Remote::load(key(1), journal, wallet.clone()).unwrap());
        let keys = owners_ring(&remote, wallet);

        let asked = || keys.ecdh(Recipient::Node, &key(2), None).unwrap();

        assert_ne!(asked(), asked(), "nobody can know it beforehand");
    }

    fn spendable_output(index: u16) -> SpendableOutputDescriptor {
        SpendableOutputDescriptor::StaticOutput {
            outpoint: lightning::chain::transaction::OutPoint {
                txid: bitcoin::hashes::Hash::all_zeros(),
                index,
            },
            output: TxOut {
                value: bitcoin::Amount::from_sat(10_000),
                script_pubkey: ScriptBuf::new(),
            },
            channel_keys_id: None,
        }
    }

    #[test]
    fn the_same_outputs_in_any_order_are_one_operation() {
        let (wallet, journal) = (wallet(), Arc::new(Journal::default()));
        let remote = Arc::new(Remote::load(key(1), journal, wallet.clone()).unwrap());
        let keys = owners_ring(&remote, wallet.clone());
        let to = lock(&wallet).unused_script();
        let outputs: Vec<_> = (0..10).map(spendable_output).collect();

        let mut asked: Vec<&SpendableOutputDescriptor> = outputs.iter().collect();
        for turn in 0..10 {
            asked.rotate_left(turn);
            let (none, secp) = (Vec::new(), &Secp256k1::new());
            let swept = keys.spend_spendable_outputs(&asked, none, to.clone(), 253, None, secp);
            assert_eq!(swept, Err(()), "the phone has not answered");
        }

        let (_, batch) = remote.next_batch().unwrap();
        assert_eq!(batch.ops.len(), 1);
    }
}
