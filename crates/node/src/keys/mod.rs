//! Where LDK meets a node's keys: one type for local keys and for those on a phone.
//!
//! - `desk.rs`: what was asked of the phone and what was answered.
//! - `remote.rs`: what the host knows of a phone's keys; prefetching.
//! - `channel.rs`: the signer of one channel.
//! - `incoming.rs`: the incoming HTLCs of our own commitments.
//! - `justice.rs`: punishing a breach with the delegated secret.
//! - `verify.rs`: the phone's signatures, before a peer sees them.
//! - `records.rs`: how it is stored.

mod channel;
pub(crate) mod desk;
pub(crate) mod incoming;
mod justice;
mod records;
pub(crate) mod remote;
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

use crate::journal::lock;
use crate::wallet::SharedWallet;
use crate::{NodeError, Registration};

pub(crate) use channel::{RemoteSigner, Signer as ChannelSigner};
use remote::Remote;

/// A signature that is none: stands in a `channel_update` until the message gate has the real one. LDK
/// would `unwrap` an error.
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

/// The keys of LDK's `NodeSigner` that cannot spend.
struct Delegated {
    inbound_payment_key: [u8; 32],
    peer_storage_key: [u8; 32],
    receive_auth_key: [u8; 32],
}

impl KeyRing {
    /// Keys derived here.
    pub fn local(keys: KeysManager, wallet: SharedWallet) -> Result<KeyRing, NodeError> {
        Ok(KeyRing {
            kind: Kind::Local(Box::new(keys)),
            wallet,
            entropy: entropy()?,
        })
    }

    /// Keys on a phone.
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

    /// The phone's side, when the keys are there.
    pub fn as_remote(&self) -> Option<&Arc<Remote>> {
        match &self.kind {
            Kind::Local(_) => None,
            Kind::Remote(remote, _) => Some(remote),
        }
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        match &self.kind {
            Kind::Local(keys) => keys.get_node_id(Recipient::Node).unwrap_or_else(|()| {
                // `KeysManager` fails only for phantom nodes.
                PublicKey::from_secret_key(&Secp256k1::new(), &keys.get_node_secret_key())
            }),
            Kind::Remote(remote, _) => remote.node_id,
        }
    }
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

    /// Remote: what was fetched before. LDK unwraps this while it reads an onion, and whoever made the onion may
    /// have put any key into it (a trampoline's). What was not fetched is answered with bytes that open nothing:
    /// LDK then fails the HTLC, or the handshake, where an error would be a panic each time the HTLC is looked at.
    fn ecdh(
        &self,
        recipient: Recipient,
        other_key: &PublicKey,
        tweak: Option<&Scalar>,
    ) -> Result<SharedSecret, ()> {
        match &self.kind {
            Kind::Local(keys) => keys.ecdh(recipient, other_key, tweak),
            // The tweak went into the answer: the phone was given the path key with the onion.
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
            // The actor has reserved keys for this channel before it let LDK make it.
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
        // LDK gives them in another order with each call, and what the phone has answered is found by its content.
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
                sweeps(&tx, descriptors, &change_destination_script).ok_or(())?;
                Ok(tx)
            }
            _ => Err(()),
        }
    }
}

/// That a sweep spends what was asked, all of it to where it was asked: LDK and the wallet take it for that.
fn sweeps(
    tx: &Transaction,
    descriptors: &[&SpendableOutputDescriptor],
    to: &bitcoin::Script,
) -> Option<()> {
    let asked: HashSet<OutPoint> = descriptors
        .iter()
        .map(|descriptor| descriptor.spendable_outpoint().into_bitcoin_outpoint())
        .collect();
    let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    let all_there = !tx.output.is_empty() && tx.output.iter().all(|out| *out.script_pubkey == *to);
    let right = asked == spent && all_there;
    if !right {
        tracing::error!("the signer gave a sweep of something else; it was not sent");
    }
    right.then_some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;
    use crate::journal::Journal;
    use crate::wallet::new_wallet;

    fn wallet() -> SharedWallet {
        Arc::new(Mutex::new(new_wallet()))
    }

    fn key(byte: u8) -> PublicKey {
        let secret = bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &secret)
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

    fn peel_answer(onion_secret: Vec<u8>) -> longhand_proto::signer::SignerReply {
        let answer = longhand_proto::signer::PeelOnionAnswer {
            onion_secret,
            path_secret: Vec::new(),
        };
        longhand_proto::signer::SignerReply {
            answers: vec![longhand_proto::signer::SignerAnswer {
                answer: Some(Answer::PeelOnion(answer)),
            }],
        }
    }

    fn stored(journal: &Journal) -> Arc<Journal> {
        let puts = journal.take().into_iter().filter_map(|write| match write {
            longhand_store::Write::Put(key, value) => Some((key, value)),
            longhand_store::Write::Delete(_) => None,
        });
        Arc::new(Journal::loading(puts.collect()))
    }

    #[test]
    fn an_onion_secret_that_cannot_be_read_is_not_stored_and_asked_for_again_after_a_restart() {
        let journal = Arc::new(Journal::default());
        let remote = Remote::load(key(1), journal.clone(), wallet()).unwrap();
        remote.peel(&key(2), None, 100);
        let (keys, _) = remote.next_batch().unwrap();
        remote.take_reply(&keys, peel_answer(vec![1; 7]));
        assert!(!remote.peels_pending(), "LDK goes on and fails the HTLC");

        let after = Remote::load(key(1), stored(&journal), wallet()).unwrap();

        assert!(after.peels_pending());
        assert_eq!(after.shared_secret(&key(2)), None);
    }

    #[test]
    fn an_onion_that_is_used_again_is_kept_for_as_long_as_its_last_htlc_needs_it() {
        let journal = Arc::new(Journal::default());
        let remote = Remote::load(key(1), journal, wallet()).unwrap();
        remote.peel(&key(2), None, 100);
        let (keys, _) = remote.next_batch().unwrap();
        remote.take_reply(&keys, peel_answer(vec![1; 32]));
        remote.peel(&key(2), None, 3_000);
        remote.prune(2_000);
        assert_eq!(remote.shared_secret(&key(2)), Some([1; 32]));
        remote.prune(5_000);
        assert_eq!(remote.shared_secret(&key(2)), None);
    }

    #[test]
    fn a_key_that_somebody_put_into_an_onion_is_answered_with_a_secret_that_opens_nothing() {
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
    fn the_same_outputs_are_swept_with_one_question_whatever_order_ldk_gives_them_in() {
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
