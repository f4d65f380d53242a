//! The miner's wallet: one P2WPKH key, with whose coins the faucet pays.
//!
//! Its coins are found in the chain and the mempool by their script: only the key is stored.

use std::io::Write as _;
use std::path::Path;

use bitcoin::absolute::LockTime;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::rand::thread_rng;
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction,
};

use super::DevnetError;

/// Fee rate of the faucet, in satoshis per virtual byte.
const FEE_RATE: u64 = 2;
/// Virtual bytes of a transaction with one P2WPKH output for change and no inputs; of an input.
const BASE_VSIZE: u64 = 11 + 31;
const INPUT_VSIZE: u64 = 68;
/// Change below this is added to the fee, which the same wallet mines.
const LEAST_CHANGE: Amount = Amount::from_sat(1_000);

/// The key. It is protected although devnet's coins are worth nothing.
pub(super) struct MinerWallet {
    secp: Secp256k1<All>,
    key: SecretKey,
    public: CompressedPublicKey,
}

impl Drop for MinerWallet {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl MinerWallet {
    /// A wallet with a new key, which is not stored.
    pub(super) fn random() -> MinerWallet {
        MinerWallet::new(SecretKey::new(&mut thread_rng()))
    }

    /// The wallet whose key is in the file at `path`; creates the file when there is none.
    pub(super) fn open(path: &Path) -> Result<MinerWallet, DevnetError> {
        let failed =
            |e: &dyn std::fmt::Display| DevnetError::Data(format!("{}: {e}", path.display()));
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
            let key: SecretKey = text
                .trim()
                .parse()
                .map_err(|_| failed(&"not a secret key of 64 hex digits"))?;
            return Ok(MinerWallet::new(key));
        }
        let wallet = MinerWallet::random();
        // Written under another name first, so that the file is whole or absent.
        let new = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&new)?;
            writeln!(file, "{}", wallet.key.display_secret())?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        };
        write().map_err(|e| failed(&e))?;
        Ok(wallet)
    }

    /// The wallet of a key.
    pub(super) fn new(key: SecretKey) -> MinerWallet {
        let secp = Secp256k1::new();
        let public = CompressedPublicKey(key.public_key(&secp));
        MinerWallet { secp, key, public }
    }

    pub(super) fn key(&self) -> SecretKey {
        self.key
    }

    /// The script of the wallet.
    pub(super) fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Pays `amount` to `script` from `coins`, of which the first ones are taken first. `Err` with the sum of `coins`
    /// when that is too little.
    pub(super) fn pay(
        &self,
        coins: &[(OutPoint, TxOut)],
        script: &ScriptBuf,
        amount: Amount,
    ) -> Result<Transaction, Amount> {
        let payment = TxOut {
            value: amount,
            script_pubkey: script.clone(),
        };
        let mut vsize = BASE_VSIZE + payment.size() as u64;
        let mut total = Amount::ZERO;
        let mut spent = vec![];
        for (outpoint, output) in coins {
            total += output.value;
            vsize += INPUT_VSIZE;
            spent.push((*outpoint, output.clone()));
            let fee = Amount::from_sat(vsize * FEE_RATE);
            let Some(change) = amount
                .checked_add(fee)
                .and_then(|needed| total.checked_sub(needed))
            else {
                continue;
            };
            let mut output = vec![payment];
            if change >= LEAST_CHANGE {
                output.push(TxOut {
                    value: change,
                    script_pubkey: self.script(),
                });
            }
            return self.sign(&spent, output).map_err(|_| total);
        }
        Err(total)
    }

    fn sign(
        &self,
        spent: &[(OutPoint, TxOut)],
        output: Vec<TxOut>,
    ) -> Result<Transaction, bitcoin::sighash::P2wpkhError> {
        let input = |(outpoint, _): &(OutPoint, TxOut)| TxIn {
            previous_output: *outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: spent.iter().map(input).collect(),
            output,
        };
        let mut cache = SighashCache::new(&mut tx);
        for (index, (_, out)) in spent.iter().enumerate() {
            let hash = cache.p2wpkh_signature_hash(
                index,
                &out.script_pubkey,
                out.value,
                EcdsaSighashType::All,
            )?;
            let signature = self.secp.sign_ecdsa(&Message::from(hash), &self.key);
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
            if let Some(witness) = cache.witness_mut(index) {
                *witness = Witness::p2wpkh(&signature, &self.public.0);
            }
        }
        Ok(tx)
    }
}
