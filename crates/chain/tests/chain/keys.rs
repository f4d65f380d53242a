//! A key with coins, and transactions from it.

use bitcoin::absolute::LockTime;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::{All, Message, PublicKey, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, KnownHrp, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
};
use longhand_chain::Devnet;

/// A P2WPKH key.
pub struct Key {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
}

/// An output that can be spent.
pub type Coin = (OutPoint, TxOut);

impl Key {
    pub fn new(seed: u8) -> Key {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[seed; 32]).unwrap();
        let public = CompressedPublicKey(secret.public_key(&secp));
        Key {
            secp,
            secret,
            public,
        }
    }

    pub fn public_key(&self) -> PublicKey {
        self.public.0
    }

    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    pub fn address(&self) -> Address {
        Address::p2wpkh(&self.public, KnownHrp::Regtest)
    }

    /// A confirmed coin from the faucet.
    pub fn fund(&self, devnet: &Devnet, sat: u64) -> Coin {
        let txid = devnet
            .faucet(&self.address(), Amount::from_sat(sat))
            .unwrap();
        devnet.mine_to_wallet(1).unwrap();
        coin(&devnet.transaction(&txid).unwrap(), &self.script())
    }

    /// A signed transaction that pays all but `fee` back to this key.
    pub fn spend(&self, coin: &Coin, fee: u64) -> Transaction {
        self.build(std::slice::from_ref(coin), fee, |_| {})
    }

    /// As [`Key::spend`], with more coins and changed before it is signed.
    pub fn build(
        &self,
        coins: &[Coin],
        fee: u64,
        change: impl FnOnce(&mut Transaction),
    ) -> Transaction {
        let total: Amount = coins.iter().map(|(_, output)| output.value).sum();
        let output = TxOut {
            value: total - Amount::from_sat(fee),
            script_pubkey: self.script(),
        };
        let input = |(outpoint, _): &Coin| TxIn {
            previous_output: *outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: vec![output],
        };
        change(&mut tx);
        self.sign(&mut tx, coins);
        tx
    }

    /// Signs the inputs that spend outputs of this key.
    fn sign(&self, tx: &mut Transaction, coins: &[Coin]) {
        let mut cache = SighashCache::new(tx);
        for (index, (_, output)) in coins.iter().enumerate() {
            if output.script_pubkey != self.script() {
                continue;
            }
            let all = EcdsaSighashType::All;
            let hash = cache
                .p2wpkh_signature_hash(index, &output.script_pubkey, output.value, all)
                .unwrap();
            // Always of one length, so that fees are the same in every run.
            let nonces = (0..=u8::MAX).map(|nonce| [nonce; 32]);
            let mut signatures = nonces.map(|nonce| {
                let message = Message::from(hash);
                self.secp
                    .sign_ecdsa_with_noncedata(&message, &self.secret, &nonce)
            });
            let signature = signatures
                .find(|signature| signature.serialize_der().len() == 71)
                .unwrap();
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
            *cache.witness_mut(index).unwrap() = Witness::p2wpkh(&signature, &self.public.0);
        }
    }
}

/// The output of `tx` to `script`.
pub fn coin(tx: &Transaction, script: &ScriptBuf) -> Coin {
    let vout = tx
        .output
        .iter()
        .position(|output| output.script_pubkey == *script)
        .unwrap();
    output(tx, vout)
}

/// An output of `tx`.
pub fn output(tx: &Transaction, vout: usize) -> Coin {
    (
        OutPoint::new(tx.compute_txid(), vout as u32),
        tx.output[vout].clone(),
    )
}
