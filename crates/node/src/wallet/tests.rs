//! The wallet on a chain of hand-made blocks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::key::Secp256k1;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, BlockHash, CompactTarget, Network, OutPoint, Psbt, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Txid, Witness, transaction,
};
use longhand_chain::BlockRef;

use super::*;

const FEERATE: u32 = 253;
const P2WPKH_DUST_SAT: u64 = 294;

/// An account's descriptors: what the host knows, and what the signer knows.
struct Account {
    watch: [String; 2],
    keys: [String; 2],
    master: Xpriv,
}

fn account(kind: &str, seed: u8) -> Account {
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

/// A wallet that follows a chain, and keeps what it stages.
struct World {
    wallet: Wallet,
    account: Account,
    chain: Vec<Header>,
    journal: Vec<Vec<u8>>,
}

impl World {
    fn new(kind: &str) -> World {
        World::of(account(kind, 7), false)
    }

    fn of(account: Account, with_keys: bool) -> World {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest).header;
        let [external, internal] = if with_keys {
            &account.keys
        } else {
            &account.watch
        };
        let birthday = BlockRef {
            height: 0,
            hash: genesis.block_hash(),
        };
        let wallet = Wallet::create(external, internal, Network::Regtest, birthday).unwrap();
        let mut world = World {
            wallet,
            account,
            chain: vec![genesis],
            journal: Vec::new(),
        };
        world.commit();
        world
    }

    fn commit(&mut self) {
        self.journal.extend(self.wallet.take_staged());
    }

    fn reload(&mut self) {
        self.commit();
        let [external, internal] = &self.account.watch;
        let journal = self.journal.clone();
        self.wallet = Wallet::load(external, internal, Network::Regtest, journal).unwrap();
    }

    fn at(&self, height: usize) -> BlockRef {
        BlockRef {
            height: height as u32,
            hash: self.chain[height].block_hash(),
        }
    }

    fn mine(&mut self, txs: &[&Transaction]) {
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
    fn receive(&mut self, amount_sat: u64) -> Transaction {
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

    fn send(&mut self, amount: SendAmount) -> Transaction {
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
fn payment(script: &ScriptBuf, amount_sat: u64, salt: u8) -> Transaction {
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

fn foreign() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::all_zeros())
}

fn fee_sat(tx: &Transaction, inputs_sat: u64) -> u64 {
    inputs_sat
        - tx.output
            .iter()
            .map(|output| output.value.to_sat())
            .sum::<u64>()
}

#[test]
fn a_payment_counts_when_it_is_confirmed_and_no_longer_when_it_is_spent() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    assert_eq!(world.wallet.balance(), (100_000, 0));
    assert_eq!(world.wallet.best_block(), world.at(1));

    let tx = world.send(SendAmount::Exact(30_000));
    world.wallet.insert_unconfirmed(tx.clone(), 1_700_000_000);
    let change_sat = 70_000 - fee_sat(&tx, 100_000);
    assert_eq!(world.wallet.balance(), (0, change_sat));

    world.mine(&[&tx]);
    assert_eq!(world.wallet.balance(), (change_sat, 0));
    assert_eq!(world.wallet.transaction(tx.compute_txid()), Some(tx));
}

#[test]
fn a_spend_in_the_block_of_its_payment_is_seen() {
    let mut world = World::new("wpkh");
    let script = world.wallet.new_address().0.script_pubkey();
    let paid = payment(&script, 50_000, 1);
    let spent = transaction(
        &[OutPoint::new(paid.compute_txid(), 0)],
        vec![TxOut {
            value: Amount::from_sat(49_000),
            script_pubkey: foreign(),
        }],
    );
    world.mine(&[&paid, &spent]);
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn transactions_that_do_not_concern_the_wallet_leave_no_trace() {
    let mut world = World::new("wpkh");
    let foreign = payment(&foreign(), 50_000, 1);
    world.mine(&[&foreign]);
    assert_eq!(world.wallet.transaction(foreign.compute_txid()), None);
    assert_eq!(
        world.wallet.bdk.checkpoints().count(),
        1,
        "only the genesis block"
    );
    assert_eq!(world.wallet.best_block(), world.at(1));
}

#[test]
fn a_coinbase_is_pending_until_it_is_mature() {
    let mut world = World::new("wpkh");
    let script = world.wallet.new_address().0.script_pubkey();
    let output = TxOut {
        value: Amount::from_sat(50_000),
        script_pubkey: script,
    };
    world.mine(&[&transaction(&[OutPoint::null()], vec![output])]);
    for _ in 0..98 {
        world.mine(&[]);
    }
    assert_eq!(world.wallet.balance(), (0, 50_000));
    assert!(world.wallet.confirmed_utxos().is_empty());
    world.mine(&[]);
    assert_eq!(world.wallet.balance(), (50_000, 0));
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
}

#[test]
fn a_missing_block_is_refused_and_a_known_one_ignored() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let known = world.chain[1];
    world.wallet.connect_block(1, &known, &[]).unwrap();
    assert_eq!(world.wallet.balance(), (50_000, 0));

    let gap = header(BlockHash::all_zeros(), 3, 0);
    let refused = world.wallet.connect_block(3, &gap, &[]).unwrap_err();
    assert_eq!(refused, WalletError::OutOfOrder { height: 3, tip: 1 });
    let stranger = header(BlockHash::all_zeros(), 2, 0);
    assert!(world.wallet.connect_block(2, &stranger, &[]).is_err());
    assert_eq!(world.wallet.best_block(), world.at(1));
}

#[test]
fn a_reorganised_payment_waits_and_is_confirmed_again() {
    let mut world = World::new("wpkh");
    world.receive(20_000);
    let tx = world.receive(50_000);
    world.mine(&[]);
    world.reorg_to(1);
    assert_eq!(world.wallet.best_block(), world.at(1));
    assert_eq!(world.wallet.balance(), (20_000, 50_000));

    world.mine_with_nonce(&[], 1);
    world.mine_with_nonce(&[&tx], 1);
    assert_eq!(world.wallet.balance(), (70_000, 0));

    world.reload();
    assert_eq!(world.wallet.best_block(), world.at(3));
    assert_eq!(world.wallet.balance(), (70_000, 0));
}

#[test]
fn a_reorganisation_that_was_missed_is_seen_when_the_new_blocks_come() {
    let mut world = World::new("wpkh");
    world.mine(&[]);
    let tx = world.receive(50_000);
    world.chain.truncate(1);
    world.mine_with_nonce(&[], 1);
    assert_eq!(world.wallet.balance(), (0, 50_000));
    world.mine_with_nonce(&[&tx], 1);
    assert_eq!(world.wallet.balance(), (50_000, 0));
}

#[test]
fn reorganisations_before_and_after_a_reload_leave_a_chain_that_grows_on() {
    let mut world = World::new("wpkh");
    for _ in 0..6 {
        world.receive(10_000);
    }
    world.reorg_to(4);
    world.reload();
    world.reorg_to(2);
    world.reload();
    world.mine_with_nonce(&[], 1);
    let script = world.wallet.new_address().0.script_pubkey();
    world.mine_with_nonce(&[&payment(&script, 5_000, 99)], 1);
    world.reload();
    assert_eq!(world.wallet.best_block(), world.at(4));
    assert_eq!(world.wallet.balance(), (25_000, 40_000));
}

#[test]
fn a_wallet_is_loaded_from_its_changes_or_from_one_compacted_change() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    world.receive(60_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let address = world.wallet.new_address();
    let before = (world.wallet.balance(), world.wallet.scripts_to_watch());
    let free = world.wallet.confirmed_utxos();

    world.reload();
    assert_eq!(
        (world.wallet.balance(), world.wallet.scripts_to_watch()),
        before
    );
    assert_eq!(
        world.wallet.confirmed_utxos(),
        free,
        "reservations outlive a restart"
    );
    assert_eq!(world.wallet.best_block(), world.at(2));
    assert_eq!(world.wallet.take_staged(), None, "loading changes nothing");

    world.journal = vec![world.wallet.compacted()];
    world.mine(&[]);
    world.reload();
    assert_eq!(
        (world.wallet.balance(), world.wallet.scripts_to_watch()),
        before
    );
    assert_eq!(world.wallet.best_block(), world.at(3));
    assert_eq!(world.wallet.new_address().2, address.2 + 1);

    world.wallet.retain_reserved(|_| false);
    assert_eq!(world.wallet.confirmed_utxos().len(), 2);
    assert!(psbt.unsigned_tx.input.len() < 3);
}

#[test]
fn nothing_is_staged_when_nothing_changed() {
    let mut world = World::new("wpkh");
    assert_eq!(world.wallet.take_staged(), None);
    world.wallet.balance();
    world.wallet.scripts_to_watch();
    assert_eq!(world.wallet.take_staged(), None);
}

#[test]
fn changes_that_are_damaged_newer_or_of_other_keys_are_refused() {
    let world = World::new("wpkh");
    let [external, internal] = &world.account.watch;
    let load = |journal| Wallet::load(external, internal, Network::Regtest, journal).map(|_| ());
    let refused = |journal| matches!(load(journal), Err(WalletError::Stored(_)));
    assert!(refused(vec![]));
    assert!(refused(vec![b"{".to_vec()]));
    assert!(refused(vec![br#"{"version":2}"#.to_vec()]));
    assert!(refused(vec![
        World::of(account("wpkh", 8), false).journal[0].clone()
    ]));
    assert!(load(world.journal.clone()).is_ok());
}

#[test]
fn only_ranged_single_key_descriptors_of_the_network_make_a_wallet() {
    let Account {
        watch: [external, internal],
        ..
    } = account("wpkh", 7);
    let birthday = BlockRef {
        height: 0,
        hash: BlockHash::all_zeros(),
    };
    let create = |external: &str, internal: &str, network| {
        Wallet::create(external, internal, network, birthday)
            .map(|_| ())
            .map_err(|e| e.code())
    };
    let bad = Err("BAD_DESCRIPTOR");
    assert_eq!(create(&external, &internal, Network::Regtest), Ok(()));
    assert_eq!(create(&external, &internal, Network::Bitcoin), bad);
    assert_eq!(create(&external, &external, Network::Regtest), bad);
    assert_eq!(create("", &internal, Network::Regtest), bad);
    assert_eq!(
        create(&external.replace("/*", "/5"), &internal, Network::Regtest),
        bad
    );
    assert_eq!(
        create(
            &external.replace("wpkh(", "pkh("),
            &internal,
            Network::Regtest
        ),
        bad
    );
    assert_eq!(
        create(&format!("{external}#aaaaaaaa"), &internal, Network::Regtest),
        bad
    );
    assert_eq!(
        create(&external.replace("/*", "/*'"), &internal, Network::Regtest),
        bad
    );
}

#[test]
fn addresses_are_new_until_the_gap_limit_and_their_paths_are_known() {
    let mut world = World::new("tr");
    let all: Vec<_> = (0..UNUSED_ADDRESSES)
        .map(|_| world.wallet.new_address())
        .collect();
    for (index, (address, keychain, at)) in all.iter().enumerate() {
        assert_eq!((*keychain, *at), (0, index as u32));
        assert_eq!(
            world.wallet.path_of(&address.script_pubkey()),
            Some((0, *at))
        );
    }
    assert_eq!(
        world.wallet.new_address(),
        all[all.len() - 1],
        "no further without a payment"
    );
    world.mine(&[&payment(&all[3].0.script_pubkey(), 1_000, 1)]);
    assert_eq!(world.wallet.new_address().2, UNUSED_ADDRESSES);
    assert_eq!(world.wallet.path_of(&foreign()), None);
}

#[test]
fn change_and_shutdown_scripts_stay_the_same_until_they_are_used() {
    let mut world = World::new("wpkh");
    for keychain in [0, 1] {
        let next = |wallet: &mut Wallet| match keychain {
            0 => wallet.unused_script(),
            _ => wallet.change_script(),
        };
        let first = next(&mut world.wallet);
        assert_eq!((first.1, first.2), (keychain, 0));
        assert_eq!(next(&mut world.wallet), first);
        world.reload();
        assert_eq!(next(&mut world.wallet), first);
        world.mine(&[&payment(&first.0, 1_000, keychain as u8)]);
        assert_eq!(next(&mut world.wallet).2, 1);
    }
}

#[test]
fn what_is_to_be_watched_is_told_once() {
    let mut world = World::new("wpkh");
    let first = world.wallet.take_new_watches();
    assert_eq!(first.scripts.len(), 2 * LOOKAHEAD as usize);
    assert_eq!(first.scripts, world.wallet.scripts_to_watch());
    assert!(first.outpoints.is_empty());
    let none = world.wallet.take_new_watches();
    assert!(none.scripts.is_empty() && none.outpoints.is_empty());

    let tx = world.receive(10_000);
    let news = world.wallet.take_new_watches();
    assert_eq!(
        news.scripts.len(),
        1,
        "one more beyond the one that was paid"
    );
    assert_eq!(news.outpoints, [OutPoint::new(tx.compute_txid(), 0)]);

    world.reload();
    let all = world.wallet.take_new_watches();
    assert_eq!(all.scripts.len(), 2 * LOOKAHEAD as usize + 1);
    assert_eq!(all.outpoints, [OutPoint::new(tx.compute_txid(), 0)]);
}

#[test]
fn an_output_is_watched_until_its_spending_is_final() {
    let mut world = World::new("wpkh");
    let paid = OutPoint::new(world.receive(10_000).compute_txid(), 0);
    let tx = world.send(SendAmount::All);
    world.wallet.insert_unconfirmed(tx.clone(), 1);
    assert_eq!(world.wallet.outpoints_to_watch(), [paid]);
    world.mine(&[&tx]);
    assert_eq!(world.wallet.outpoints_to_watch(), [paid]);
    for _ in 0..chain::FINAL_DEPTH {
        world.mine(&[]);
    }
    assert!(world.wallet.outpoints_to_watch().is_empty());
}

#[test]
fn reserved_inputs_are_not_spent_twice_and_can_be_given_back() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    world.receive(50_000);
    let first = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap()
        .unsigned_tx;
    let second = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap()
        .unsigned_tx;
    assert_ne!(
        first.input[0].previous_output,
        second.input[0].previous_output
    );
    assert!(world.wallet.confirmed_utxos().is_empty());
    assert_eq!(
        world.wallet.balance(),
        (100_000, 0),
        "reserved is not spent"
    );
    let refused = world
        .wallet
        .fund(foreign(), 40_000, FEERATE, 0)
        .unwrap_err();
    let available_sat = 0;
    assert_eq!(
        refused,
        WalletError::InsufficientFunds {
            needed_sat: 40_001,
            available_sat
        }
    );

    world.wallet.release(&first);
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
}

#[test]
fn a_funding_transaction_pays_exactly_and_cannot_be_replaced_or_mined_early() {
    let mut world = World::new("wpkh");
    world.receive(500_000);
    let psbt = world.wallet.fund(foreign(), 100_000, 1_000, 0).unwrap();
    let tx = world.wallet.finalize(&world.sign(&psbt), &psbt).unwrap();
    let paid: Vec<_> = tx
        .output
        .iter()
        .filter(|output| output.script_pubkey == foreign())
        .collect();
    assert_eq!(paid.len(), 1);
    assert_eq!(paid[0].value, Amount::from_sat(100_000));
    assert_eq!(tx.lock_time, LockTime::from_height(1).unwrap());
    assert!(
        tx.input
            .iter()
            .all(|input| input.sequence == Sequence::ENABLE_LOCKTIME_NO_RBF)
    );
    let least_sat = tx.weight().to_wu();
    let fee_sat = fee_sat(&tx, 500_000);
    assert!(
        (least_sat..least_sat + 10).contains(&fee_sat),
        "{fee_sat} for {least_sat} wu"
    );
}

#[test]
fn what_is_to_be_kept_is_kept() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let refused = world
        .wallet
        .fund(foreign(), 80_000, FEERATE, 20_000)
        .unwrap_err();
    assert_eq!(refused.code(), "INSUFFICIENT_FUNDS");
    let refused = world
        .wallet
        .fund(foreign(), 80_000, FEERATE, 19_990)
        .unwrap_err();
    let WalletError::InsufficientFunds {
        needed_sat,
        available_sat,
    } = refused
    else {
        panic!("{refused}");
    };
    assert_eq!(available_sat, 100_000);
    assert!(needed_sat > 100_000, "{needed_sat}");
    assert_eq!(
        world.wallet.confirmed_utxos().len(),
        1,
        "a refusal reserves nothing"
    );
    assert_eq!(world.wallet.change_script().2, 0, "and uses no script");

    let psbt = world
        .wallet
        .send(foreign(), SendAmount::All, FEERATE, 20_000)
        .unwrap();
    let kept: Vec<_> = psbt
        .unsigned_tx
        .output
        .iter()
        .filter(|output| world.wallet.path_of(&output.script_pubkey) == Some((1, 0)))
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].value, Amount::from_sat(20_000));
    assert_eq!(psbt.unsigned_tx.output.len(), 2);
}

#[test]
fn all_leaves_nothing() {
    let mut world = World::new("tr");
    world.receive(100_000);
    world.receive(1_000);
    let tx = world.send(SendAmount::All);
    assert_eq!((tx.input.len(), tx.output.len()), (2, 1));
    world.mine(&[&tx]);
    assert_eq!(world.wallet.balance(), (0, 0));
}

#[test]
fn amounts_and_fee_rates_that_cannot_be_are_refused_and_nothing_is_reserved() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let mut code = |amount, feerate, keep| {
        world
            .wallet
            .send(foreign(), amount, feerate, keep)
            .unwrap_err()
            .code()
    };
    use SendAmount::{All, Exact};
    assert_eq!(code(Exact(0), FEERATE, 0), "BELOW_DUST");
    assert_eq!(code(Exact(329), FEERATE, 0), "BELOW_DUST");
    assert_eq!(code(Exact(100_000), FEERATE, 0), "INSUFFICIENT_FUNDS");
    assert_eq!(code(Exact(99_990), FEERATE, 0), "INSUFFICIENT_FUNDS");
    assert_eq!(
        code(Exact(u64::MAX), FEERATE, u64::MAX),
        "INSUFFICIENT_FUNDS"
    );
    assert_eq!(code(All, FEERATE, u64::MAX), "INSUFFICIENT_FUNDS");
    assert_eq!(code(All, FEERATE, 99_900), "INSUFFICIENT_FUNDS");
    assert_eq!(code(All, 600_000, 0), "INSUFFICIENT_FUNDS");
    assert_eq!(code(Exact(1_000), 0, 0), "BAD_FEE_RATE");
    assert_eq!(code(Exact(1_000), u32::MAX, 0), "BAD_FEE_RATE");
    assert_eq!(world.wallet.confirmed_utxos().len(), 1);
    let mut empty = World::new("wpkh");
    let refused = empty.wallet.send(foreign(), All, FEERATE, 0).unwrap_err();
    assert_eq!(
        refused,
        WalletError::InsufficientFunds {
            needed_sat: 1,
            available_sat: 0
        }
    );
}

#[test]
fn own_change_can_be_spent_at_once_but_not_what_others_may_take_back() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let script = world.wallet.new_address().0.script_pubkey();
    world
        .wallet
        .insert_unconfirmed(payment(&script, 70_000, 9), 1);
    assert_eq!(world.wallet.balance(), (100_000, 70_000));
    let tx = world.send(SendAmount::Exact(10_000));
    world.wallet.insert_unconfirmed(tx, 2);

    let refused = world
        .wallet
        .fund(foreign(), 95_000, FEERATE, 0)
        .unwrap_err();
    assert_eq!(refused.code(), "INSUFFICIENT_FUNDS");
    world.wallet.fund(foreign(), 80_000, FEERATE, 0).unwrap();
}

#[test]
fn a_forgotten_transaction_frees_its_inputs_and_takes_its_children_along() {
    let mut world = World::new("wpkh");
    world.receive(100_000);
    let parent = world.send(SendAmount::Exact(10_000));
    world.wallet.insert_unconfirmed(parent.clone(), 5);
    let child = world.send(SendAmount::Exact(10_000));
    world.wallet.insert_unconfirmed(child, 6);
    world.wallet.forget_unconfirmed(parent.compute_txid());
    assert_eq!(world.wallet.balance(), (100_000, 0));
    world.reload();
    assert_eq!(world.wallet.balance(), (100_000, 0));

    world.wallet.insert_unconfirmed(parent.clone(), 5);
    assert_eq!(world.wallet.balance().0, 0, "seen again, it counts again");
    world.mine(&[&parent]);
    world.wallet.forget_unconfirmed(parent.compute_txid());
    assert_eq!(world.wallet.balance().0, 90_000 - fee_sat(&parent, 100_000));
}

#[test]
fn a_replacement_counts_whatever_the_clock_says() {
    let mut world = World::new("wpkh");
    let paid = OutPoint::new(world.receive(100_000).compute_txid(), 0);
    let change = world.wallet.change_script().0;
    let mut spend = |change_sat: u64, seen: u64| {
        let output = TxOut {
            value: Amount::from_sat(change_sat),
            script_pubkey: change.clone(),
        };
        world
            .wallet
            .insert_unconfirmed(transaction(&[paid], vec![output]), seen);
        world.wallet.balance()
    };
    assert_eq!(spend(99_000, 10), (0, 99_000));
    assert_eq!(spend(98_000, 10), (0, 98_000));
    assert_eq!(spend(97_000, 3), (0, 97_000));
}

#[test]
fn a_bump_s_input_is_offered_again_until_it_confirms_or_its_parent_cannot() {
    let mut world = World::new("wpkh");
    let paid = OutPoint::new(world.receive(100_000).compute_txid(), 0);
    let funding = OutPoint::new(Txid::from_byte_array([0xfe; 32]), 0);
    let anchor = TxOut {
        value: Amount::from_sat(330),
        script_pubkey: foreign(),
    };
    let commitment = transaction(&[funding], vec![anchor]);
    let change = world.wallet.change_script().0;
    let output = TxOut {
        value: Amount::from_sat(99_000),
        script_pubkey: change,
    };
    let bump = transaction(
        &[OutPoint::new(commitment.compute_txid(), 0), paid],
        vec![output],
    );
    world.wallet.insert_package(vec![commitment, bump], 1);

    assert_eq!(world.wallet.balance(), (0, 99_000));
    let offered: Vec<_> = world
        .wallet
        .confirmed_utxos()
        .iter()
        .map(|u| u.outpoint)
        .collect();
    assert_eq!(offered, [paid], "LDK may replace the bump");
    let refused = world
        .wallet
        .fund(foreign(), 50_000, FEERATE, 0)
        .unwrap_err();
    assert_eq!(refused.code(), "INSUFFICIENT_FUNDS", "nothing else may");

    let theirs = transaction(
        &[funding],
        vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: foreign(),
        }],
    );
    world.mine(&[&theirs]);
    assert_eq!(
        world.wallet.balance(),
        (100_000, 0),
        "the peer's commitment undid ours"
    );
}

#[test]
fn signatures_of_the_owner_s_keys_make_a_transaction() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        world.receive(50_000);
        world.receive(60_000);
        let psbt = world
            .wallet
            .send(foreign(), SendAmount::All, FEERATE, 0)
            .unwrap();
        let signed = world.sign(&psbt);
        let tx = world.wallet.finalize(&signed, &psbt).unwrap();
        assert_eq!(tx.compute_txid(), psbt.unsigned_tx.compute_txid());
        assert!(tx.input.iter().all(|input| !input.witness.is_empty()));

        // A signer may as well return final witnesses.
        let mut finished = psbt.clone();
        for (input, from) in finished.inputs.iter_mut().zip(&tx.input) {
            input.final_script_witness = Some(from.witness.clone());
        }
        assert_eq!(world.wallet.finalize(&finished, &psbt).unwrap(), tx);
    }
}

#[test]
fn a_wallet_with_keys_signs_for_itself_and_one_without_does_not() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::of(account(kind, 7), true);
        world.receive(50_000);
        let psbt = world
            .wallet
            .send(foreign(), SendAmount::All, FEERATE, 0)
            .unwrap();
        let mut signed = psbt.clone();
        world.wallet.sign_locally(&mut signed).unwrap();
        world.wallet.finalize(&signed, &psbt).unwrap();
        assert!(world.wallet.holds_keys());
        let stored = String::from_utf8(world.journal.concat()).unwrap();
        assert!(!stored.contains("tprv"), "keys are not stored");

        world.reload();
        assert!(!world.wallet.holds_keys());
        assert_eq!(
            world.wallet.sign_locally(&mut signed),
            Err(WalletError::NoKeys)
        );
    }
}

#[test]
fn a_changed_transaction_is_refused() {
    let mut world = World::new("wpkh");
    world.receive(50_000);
    let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
    let mut changed = psbt.clone();
    changed.unsigned_tx.output[0].value += Amount::from_sat(1);
    let signed = world.sign(&changed);
    assert_eq!(
        world.wallet.finalize(&signed, &psbt),
        Err(WalletError::Changed)
    );
}

#[test]
fn missing_wrong_and_partial_signatures_are_refused() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        world.receive(50_000);
        let psbt = world.wallet.fund(foreign(), 40_000, FEERATE, 0).unwrap();
        assert_eq!(
            world.wallet.finalize(&psbt, &psbt),
            Err(WalletError::Unsigned { input: 0 })
        );

        // Valid, but of another transaction.
        let mut other = psbt.clone();
        other.unsigned_tx.lock_time = LockTime::ZERO;
        let mut wrong = world.sign(&other);
        wrong.unsigned_tx = psbt.unsigned_tx.clone();
        let refused = world.wallet.finalize(&wrong, &psbt).unwrap_err();
        assert_eq!(refused.code(), "BAD_SIGNATURE", "{kind}");

        // Valid, but it leaves the outputs open.
        let mut open = psbt.clone();
        open.inputs[0].sighash_type = Some(match kind {
            "tr" => bitcoin::TapSighashType::None.into(),
            _ => EcdsaSighashType::None.into(),
        });
        let refused = world
            .wallet
            .finalize(&world.sign(&open), &psbt)
            .unwrap_err();
        assert_eq!(refused.code(), "BAD_SIGNATURE", "{kind}");

        // Not a signature.
        let mut garbage = psbt.clone();
        garbage.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1u8; 5]]));
        let refused = world.wallet.finalize(&garbage, &psbt).unwrap_err();
        assert_eq!(refused.code(), "BAD_SIGNATURE", "{kind}");
    }
}

#[test]
fn a_transaction_with_inputs_of_others_is_described_and_signed_for_its_own_part() {
    for kind in ["wpkh", "tr"] {
        let mut world = World::new(kind);
        let paid = world.receive(100_000);
        let (change, ..) = world.wallet.change_script();
        let anchor = TxOut {
            value: Amount::from_sat(330),
            script_pubkey: foreign(),
        };
        let tx = transaction(
            &[
                OutPoint::new(Txid::from_byte_array([5; 32]), 1),
                OutPoint::new(paid.compute_txid(), 0),
            ],
            vec![TxOut {
                value: Amount::from_sat(99_000),
                script_pubkey: change,
            }],
        );
        let mut built = Psbt::from_unsigned_tx(tx).unwrap();
        built.inputs[0].witness_utxo = Some(anchor);
        let psbt = world.wallet.describe(built.clone());
        assert_eq!(psbt.inputs[0], built.inputs[0], "others' inputs are left");
        assert_eq!(psbt.inputs[1].witness_utxo, Some(paid.output[0].clone()));
        if kind == "tr" {
            assert_eq!(psbt.inputs[1].tap_key_origins.len(), 1);
            assert_eq!(psbt.outputs[0].tap_key_origins.len(), 1);
            assert!(psbt.inputs[1].tap_internal_key.is_some());
        } else {
            assert_eq!(psbt.inputs[1].bip32_derivation.len(), 1);
            assert_eq!(psbt.outputs[0].bip32_derivation.len(), 1);
            assert_eq!(psbt.inputs[1].non_witness_utxo, Some(paid));
        }

        let mut signed = psbt.clone();
        let _ = signed.sign(&world.account.master, &Secp256k1::new());
        let tx = world.wallet.finalize_own(&signed, &psbt).unwrap();
        assert!(tx.input[0].witness.is_empty());
        assert!(!tx.input[1].witness.is_empty());
        let refused = world.wallet.finalize(&signed, &psbt);
        assert_eq!(refused, Err(WalletError::Unsigned { input: 0 }));
    }
}

#[test]
fn ldk_s_coin_selection_works_on_the_wallet() {
    use lightning::util::wallet_utils::{
        CoinSelectionSourceSync, Input, Utxo, WalletSourceSync, WalletSync,
    };
    use std::sync::Mutex;

    struct Source(Mutex<World>);
    impl WalletSourceSync for Source {
        fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
            Ok(self.0.lock().unwrap().wallet.confirmed_utxos())
        }
        fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
            self.0
                .lock()
                .unwrap()
                .wallet
                .transaction(outpoint.txid)
                .ok_or(())
        }
        fn get_change_script(&self) -> Result<ScriptBuf, ()> {
            Ok(self.0.lock().unwrap().wallet.change_script().0)
        }
        fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
            let world = self.0.lock().unwrap();
            let described = world.wallet.describe(psbt);
            let mut signed = described.clone();
            let _ = signed.sign(&world.account.master, &Secp256k1::new());
            world
                .wallet
                .finalize_own(&signed, &described)
                .map_err(|_| ())
        }
    }

    let mut world = World::new("wpkh");
    world.receive(10_000);
    world.receive(P2WPKH_DUST_SAT);
    let source = Source(Mutex::new(world));
    let wallet = WalletSync::new(
        &source,
        Arc::new(crate::logger::Logger {
            node: "test".into(),
        }),
    );
    let anchor = Input {
        outpoint: OutPoint::new(Txid::from_byte_array([5; 32]), 1),
        previous_utxo: TxOut {
            value: Amount::from_sat(330),
            script_pubkey: foreign(),
        },
        satisfaction_weight: 115,
    };
    let claim = Some(lightning::chain::ClaimId([1; 32]));
    let selected = wallet
        .select_confirmed_utxos(claim, vec![anchor.clone()], &[], 5_000, 400_000)
        .unwrap();
    assert_eq!(selected.confirmed_utxos.len(), 1);
    let change = selected.change_output.clone().unwrap();
    let again = wallet.select_confirmed_utxos(claim, vec![anchor.clone()], &[], 5_500, 400_000);
    assert_eq!(
        again.unwrap().change_output.unwrap().script_pubkey,
        change.script_pubkey
    );

    let own = selected.confirmed_utxos[0].outpoint();
    let mut psbt =
        Psbt::from_unsigned_tx(transaction(&[anchor.outpoint, own], vec![change])).unwrap();
    psbt.inputs[0].witness_utxo = Some(anchor.previous_utxo);
    let tx = wallet.sign_psbt(psbt).unwrap();
    assert!(tx.input[0].witness.is_empty() && !tx.input[1].witness.is_empty());
}
