//! How every on-chain wallet has to behave, on a chain of hand-made blocks. The tests know only the traits; another
//! implementation passes them with its factory in the place of BDK's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::str::FromStr;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::key::Secp256k1;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, BlockHash, CompactTarget, Sequence, TxIn, TxMerkleNode, TxOut, Witness, transaction,
};

mod chain;
mod coins;
mod records;
mod sign;
mod spend;

use super::*;

/// The wallets that are tested.
const WALLETS: &dyn WalletFactory = &BdkWallets;

pub(super) const FEERATE: u32 = 253;
const P2WPKH_DUST_SAT: u64 = 294;

/// An account's descriptors: public ones as the host has them, and those with the signer's keys.
pub(super) struct Account {
    pub(super) watch: [String; 2],
    keys: [String; 2],
    master: Xpriv,
}

pub(super) fn account(kind: &str, seed: u8) -> Account {
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap();
    let purpose = if kind == "tr" { 86 } else { 84 };
    let path = format!("{purpose}'/1'/0'");
    let key = master
        .derive_priv(&secp, &DerivationPath::from_str(&path).unwrap())
        .unwrap();
    let origin = format!("[{}/{path}]", master.fingerprint(&secp));
    let descriptor = |key: &str, keychain: u32| format!("{kind}({origin}{key}/{keychain}/*)");
    let public = Xpub::from_priv(&secp, &key).to_string();
    Account {
        watch: [0, 1].map(|keychain| descriptor(&public, keychain)),
        keys: [0, 1].map(|keychain| descriptor(&key.to_string(), keychain)),
        master,
    }
}

/// A wallet that follows a chain, and the records that it writes.
pub(super) struct World {
    pub(super) wallet: Box<dyn OnchainWallet>,
    account: Account,
    chain: Vec<Header>,
    pub(super) records: BTreeMap<String, Vec<u8>>,
}

fn genesis() -> Header {
    bitcoin::constants::genesis_block(Network::Regtest).header
}

fn setup(descriptors: &[String; 2]) -> WalletSetup {
    let [external, internal] = descriptors.clone();
    WalletSetup {
        namespace: "alice".into(),
        network: Network::Regtest,
        external: external.into(),
        internal: internal.into(),
        birthday: BlockRef {
            height: 0,
            hash: genesis().block_hash(),
        },
    }
}

/// A new wallet that only watches.
pub(crate) fn new_wallet() -> Box<dyn OnchainWallet> {
    let descriptors = &account("wpkh", 7).watch;
    WALLETS.load(&setup(descriptors), Vec::new()).unwrap()
}

/// A new wallet of these descriptors.
pub(crate) fn new_wallet_of(descriptors: [String; 2]) -> Box<dyn OnchainWallet> {
    WALLETS.load(&setup(&descriptors), Vec::new()).unwrap()
}

impl World {
    pub(super) fn new(kind: &str) -> World {
        World::of(account(kind, 7), false)
    }

    fn of(account: Account, with_keys: bool) -> World {
        let descriptors = if with_keys {
            &account.keys
        } else {
            &account.watch
        };
        let mut world = World {
            wallet: WALLETS.load(&setup(descriptors), Vec::new()).unwrap(),
            account,
            chain: vec![genesis()],
            records: BTreeMap::new(),
        };
        world.commit();
        world
    }

    /// Writes the changes, as a turn does; returns the number of writes.
    fn commit(&mut self) -> usize {
        let writes = self.wallet.take_changes();
        let count = writes.len();
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    self.records.insert(key, value);
                }
                Write::Delete(key) => {
                    self.records.remove(&key);
                }
            }
        }
        count
    }

    /// The setup of the wallet, without keys.
    pub(super) fn setup(&self) -> WalletSetup {
        setup(&self.account.watch)
    }

    /// The stored records, in the order of their keys.
    pub(super) fn stored(&self) -> Vec<(String, Vec<u8>)> {
        self.records.clone().into_iter().collect()
    }

    /// A second wallet, from what is stored.
    fn loaded(&self) -> Box<dyn OnchainWallet> {
        WALLETS.load(&self.setup(), self.stored()).unwrap()
    }

    fn reload(&mut self) {
        self.commit();
        self.wallet = self.loaded();
    }

    fn at(&self, height: usize) -> BlockRef {
        BlockRef {
            height: height as u32,
            hash: self.chain[height].block_hash(),
        }
    }

    pub(super) fn mine(&mut self, txs: &[&Transaction]) {
        self.mine_with_nonce(txs, 0);
    }

    fn mine_with_nonce(&mut self, txs: &[&Transaction], nonce: u32) {
        let height = self.chain.len() as u32;
        let header = header(self.chain[self.chain.len() - 1].block_hash(), height, nonce);
        let txs: Vec<_> = txs
            .iter()
            .enumerate()
            .map(|(i, tx)| (i + 1, Arc::new((*tx).clone())))
            .collect();
        self.wallet.connect_block(height, &header, &txs).unwrap();
        self.chain.push(header);
        self.commit();
    }

    fn reorg_to(&mut self, height: usize) {
        self.chain.truncate(height + 1);
        let fork = self.at(height);
        self.wallet.disconnect_to(fork).unwrap();
        self.commit();
    }

    /// Receives in a block of its own.
    pub(super) fn receive(&mut self, amount_sat: u64) -> Transaction {
        let script = self.wallet.new_address().0.script_pubkey();
        let tx = payment(&script, amount_sat, self.chain.len() as u8);
        self.mine(&[&tx]);
        tx
    }

    /// As a phone would sign.
    fn sign(&self, psbt: &Psbt) -> Psbt {
        let mut signed = psbt.clone();
        signed
            .sign(&self.account.master, &Secp256k1::new())
            .unwrap();
        signed
    }

    fn broadcast(&mut self, tx: Transaction, seen_unix_s: u64) {
        self.wallet.insert_package(vec![tx], seen_unix_s);
    }

    /// An unused script for change.
    fn change_script(&mut self) -> ScriptBuf {
        self.wallet.claim_change_script(&[])
    }

    /// All scripts that are watched.
    fn scripts(&mut self) -> Vec<ScriptBuf> {
        self.commit();
        self.loaded().take_new_watches().scripts
    }

    pub(super) fn send(&mut self, amount: SendAmount) -> Transaction {
        let psbt = self.wallet.send(foreign(), amount, FEERATE, 0).unwrap();
        self.wallet.finalize(&self.sign(&psbt), &psbt).unwrap()
    }
}

fn header(prev_blockhash: BlockHash, height: u32, nonce: u32) -> Header {
    Header {
        version: Version::TWO,
        prev_blockhash,
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_700_000_000 + height * 600,
        bits: CompactTarget::from_consensus(0x207fffff),
        nonce,
    }
}

/// A payment from somebody; `salt` makes it one of a kind.
pub(super) fn payment(script: &ScriptBuf, amount_sat: u64, salt: u8) -> Transaction {
    let value = Amount::from_sat(amount_sat);
    transaction(
        &[OutPoint::new(Txid::from_byte_array([salt; 32]), 0)],
        vec![TxOut {
            value,
            script_pubkey: script.clone(),
        }],
    )
}

fn transaction(inputs: &[OutPoint], output: Vec<TxOut>) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output,
    }
}

pub(super) fn foreign() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::all_zeros())
}

fn fee_sat(tx: &Transaction, inputs_sat: u64) -> u64 {
    inputs_sat
        - tx.output
            .iter()
            .map(|output| output.value.to_sat())
            .sum::<u64>()
}
