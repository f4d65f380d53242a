#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid, transaction,
};
use longhand_proto::command::CloseChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::{Done, Refusal, SignerAnswer, SignerOp, SignerReply};
use longhand_signer::Close as SeenClose;
use longhand_store::Write;

use super::records::{Close, Commitment, InBlock, KEPT_BLOCKS, Spend};
use super::*;
use crate::machine::input::Input;
use crate::machine::testing::{Id, World};
use crate::parts::testing::Pair;

const KEYS: KeysId = [7; 32];

fn txid(byte: u8) -> Txid {
    Txid::from_byte_array([byte; 32])
}

fn block_hash(byte: u8) -> BlockHash {
    BlockHash::from_byte_array([byte; 32])
}

fn funding() -> OutPoint {
    OutPoint::new(txid(1), 1)
}

/// A channel whose funding was proven, and of which nothing else is known.
fn open() -> Proven {
    Proven {
        block: block_hash(2),
        outpoint: funding(),
        close: None,
    }
}

fn spending(outputs: &[OutPoint]) -> Transaction {
    let input = outputs.iter().map(|output| TxIn {
        previous_output: *output,
        ..TxIn::default()
    });
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: input.collect(),
        output: vec![TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: ScriptBuf::new(),
        }],
    }
}

fn coop_close() -> Transaction {
    spending(&[funding()])
}

fn commitment() -> Transaction {
    let mut commitment = spending(&[funding()]);
    commitment.lock_time = LockTime::from_consensus(0x2012_3456);
    commitment.input[0].sequence = Sequence(0x8012_3456);
    commitment
}

/// Spends these outputs of the commitment.
fn spend_of(outputs: &[u32]) -> Transaction {
    let txid = commitment().compute_txid();
    let outputs = outputs.iter().map(|vout| OutPoint::new(txid, *vout));
    spending(&outputs.collect::<Vec<_>>())
}

/// The part alone. The test is the chain and the phone.
struct Part {
    world: World,
    owner: Id,
    proofs: FundingProofs,
    store: BTreeMap<String, Vec<u8>>,
}

impl Part {
    /// With a channel whose funding was proven.
    fn new() -> Part {
        let mut world = World::new();
        let owner = world.add_owner(2, None);
        let mut proofs = FundingProofs::default();
        proofs.proven.insert(KEYS, open());
        let store = BTreeMap::new();
        Part {
            world,
            owner,
            proofs,
            store,
        }
    }

    fn write(&mut self) {
        for write in self.world.turn(self.owner).journal.take() {
            match write {
                Write::Put(key, value) => drop(self.store.insert(key, value)),
                Write::Delete(key) => drop(self.store.remove(&key)),
            }
        }
    }

    fn has_record(&mut self) -> bool {
        self.write();
        self.store.contains_key(&schema::proven_key(&KEYS))
    }

    /// As after a restart of the node.
    fn reload(&mut self) {
        self.write();
        let journal = Journal::loading(self.store.clone().into_iter().collect());
        self.proofs = FundingProofs::load(&journal).unwrap();
    }

    /// A block with these transactions, which the part gets.
    fn mine(&mut self, transactions: &[Transaction]) {
        self.world.mempool.extend_from_slice(transactions);
        self.world.mine(1);
        self.give_again(self.world.height());
    }

    /// The part gets a block, perhaps once more.
    fn give_again(&mut self, height: u32) {
        let (header, transactions) = self.world.blocks[height as usize].clone();
        let at = (height, header.block_hash());
        let journal = &self.world.turn(self.owner).journal;
        self.proofs
            .block_connected(journal, at, transactions.iter());
    }

    /// The source gives the next proof that is due. Returns the transaction.
    fn ask_source(&mut self) -> Option<Txid> {
        let request = self.proofs.request()?;
        let mut blocks = self.world.blocks.iter();
        let found = blocks.find(|(header, _)| header.block_hash() == request.block);
        let (header, txdata) = found.unwrap().clone();
        let mut txs = txdata.iter();
        let position = txs.position(|tx| tx.compute_txid() == request.txid);
        let position = u32::try_from(position.unwrap()).unwrap();
        let proof = Proof::prove(&Block { header, txdata }, position).unwrap();
        self.proofs.answered(self.world.turn(self.owner), Ok(proof));
        Some(request.txid)
    }

    /// The phone answers what it was sent. Returns the transactions of the proofs.
    fn phone_answers(&mut self, answer: &Answer) -> Vec<Txid> {
        let turn = self.world.turn(self.owner);
        let remote = turn.remote().unwrap();
        let mut proven = Vec::new();
        while let Some((keys, batch)) = remote.next_batch() {
            proven.extend(batch.ops.iter().filter_map(proven_by));
            let answer = SignerAnswer {
                answer: Some(answer.clone()),
            };
            let answers = vec![answer; keys.len()];
            remote.take_reply(&keys, SignerReply { answers });
        }
        self.proofs.take_accepted(turn);
        proven
    }

    fn look(&mut self) {
        self.proofs.look(self.world.turn(self.owner));
    }

    /// A phone comes and takes all proofs. Returns their transactions, in order.
    fn all_proven(&mut self) -> Vec<Txid> {
        self.look();
        let mut proven = Vec::new();
        while self.ask_source().is_some() {
            proven.extend(self.phone_answers(&Answer::Done(Done {})));
        }
        proven
    }
}

/// The transaction that an operation proves.
fn proven_by(op: &SignerOp) -> Option<Txid> {
    let Some(Op::ProveTransaction(it)) = &op.op else {
        return None;
    };
    Some(Proof::decode(&it.proof).unwrap().transaction.compute_txid())
}

fn ids(transactions: &[Transaction]) -> Vec<Txid> {
    transactions.iter().map(Transaction::compute_txid).collect()
}

#[test]
fn each_spend_of_a_commitment_is_proven_after_it_and_one_by_one() {
    let mut part = Part::new();
    let (one, two) = (spend_of(&[3, 0]), spend_of(&[1]));
    part.mine(&[commitment(), one.clone()]);
    part.mine(std::slice::from_ref(&two));
    part.look();
    assert_eq!(part.proofs.due.len(), 1);
    assert_eq!(part.all_proven(), ids(&[commitment(), one, two]));
    // What was proven is not proven again, also when its block comes again after a restart.
    part.reload();
    (1..=part.world.height()).for_each(|height| part.give_again(height));
    assert!(part.all_proven().is_empty());
    part.mine(&[spend_of(&[2])]);
    assert_eq!(part.all_proven(), ids(&[spend_of(&[2])]));
}

#[test]
fn spends_that_were_mined_while_the_phone_was_away_are_proven_to_it_after_a_restart() {
    let mut part = Part::new();
    part.mine(&[commitment()]);
    part.mine(&[spend_of(&[0])]);
    part.reload();
    assert_eq!(part.all_proven(), ids(&[commitment(), spend_of(&[0])]));
}

#[test]
fn a_spend_that_a_reorganisation_has_moved_is_proven_again() {
    let mut part = Part::new();
    part.mine(&[commitment()]);
    part.mine(&[spend_of(&[0])]);
    assert_eq!(part.all_proven().len(), 2);
    part.world.disconnect(1);
    part.world.mempool.clear();
    part.mine(&[]);
    part.mine(&[spend_of(&[0])]);
    assert_eq!(part.all_proven(), ids(&[spend_of(&[0])]));
    // Another one may take its place.
    part.world.disconnect(1);
    part.world.mempool.clear();
    part.mine(&[spend_of(&[0, 1])]);
    assert_eq!(part.all_proven(), ids(&[spend_of(&[0, 1])]));
}

#[test]
fn a_commitment_that_a_reorganisation_has_moved_is_proven_again_before_its_spends() {
    let mut part = Part::new();
    part.mine(&[commitment(), spend_of(&[0])]);
    assert_eq!(part.all_proven().len(), 2);
    part.world.disconnect(1);
    part.world.mempool.clear();
    part.mine(&[]);
    part.mine(&[commitment()]);
    part.mine(&[spend_of(&[0])]);
    assert_eq!(part.all_proven(), ids(&[commitment(), spend_of(&[0])]));
}

#[test]
fn a_reorganisation_while_the_phone_looks_at_a_proof_brings_the_close_again() {
    for close in [coop_close(), commitment()] {
        let mut part = Part::new();
        part.mine(std::slice::from_ref(&close));
        part.look();
        part.ask_source().unwrap();
        part.world.disconnect(1);
        part.world.mempool.clear();
        part.mine(&[]);
        part.mine(std::slice::from_ref(&close));
        let done = Answer::Done(Done {});
        assert_eq!(part.phone_answers(&done), [close.compute_txid()]);
        assert!(part.has_record());
        assert_eq!(part.all_proven(), [close.compute_txid()]);
    }
}

#[test]
fn nothing_is_proven_after_a_cooperative_close() {
    let mut part = Part::new();
    let output = OutPoint::new(coop_close().compute_txid(), 0);
    part.mine(&[coop_close(), spending(&[output])]);
    assert!(part.has_record());
    assert_eq!(part.all_proven(), ids(&[coop_close()]));
    assert!(!part.has_record());
    part.mine(&[spending(&[output])]);
    assert!(part.all_proven().is_empty());
}

#[test]
fn a_record_is_dropped_4032_blocks_after_a_commitment_that_the_phone_was_shown() {
    let mut part = Part::new();
    part.mine(&[commitment(), spend_of(&[0])]);
    let forget = |part: &mut Part, height| {
        let journal = &part.world.turn(part.owner).journal;
        part.proofs.forget_deep(journal, height);
    };
    // The phone is away all the time.
    forget(&mut part, 1 + 4_032);
    assert!(part.has_record());
    assert_eq!(part.all_proven().len(), 2);
    forget(&mut part, 4_032);
    assert!(part.has_record());
    forget(&mut part, 1 + 4_032);
    assert!(!part.has_record());
    assert!(part.proofs.proven.is_empty());
}

#[test]
fn a_proof_that_the_phone_refuses_is_asked_once_a_link_and_keeps_no_other_back() {
    let mut part = Part::new();
    part.mine(&[commitment(), spend_of(&[0]), spend_of(&[1])]);
    part.look();
    part.ask_source().unwrap();
    part.phone_answers(&Answer::Done(Done {}));

    let refusal = Answer::Refusal(Refusal {
        rule: "rule".into(),
        message: "no".into(),
        retry: false,
    });
    part.ask_source().unwrap();
    assert_eq!(part.phone_answers(&refusal), ids(&[spend_of(&[0])]));
    part.look();
    assert_eq!(part.ask_source(), None);

    part.proofs.signer_lost();
    part.world.turn(part.owner).remote().unwrap().forget();
    assert_eq!(part.all_proven(), ids(&[spend_of(&[1]), spend_of(&[0])]));
}

#[test]
fn a_spend_that_the_source_cannot_prove_keeps_no_other_back() {
    let mut part = Part::new();
    part.mine(&[commitment(), spend_of(&[0]), spend_of(&[1])]);
    part.look();
    part.ask_source().unwrap();
    part.phone_answers(&Answer::Done(Done {}));
    part.proofs.request().unwrap();
    let turn = part.world.turn(part.owner);
    part.proofs.answered(turn, Err(ChainError::Pruned));
    assert_eq!(part.ask_source(), Some(spend_of(&[1]).compute_txid()));
}

#[test]
fn a_proof_that_the_source_gives_after_the_phone_has_left_is_asked_again() {
    let mut part = Part::new();
    part.mine(&[commitment()]);
    part.look();
    part.proofs.request().unwrap();
    part.proofs.signer_lost();
    let turn = part.world.turn(part.owner);
    part.proofs.answered(turn, Err(ChainError::Pruned));
    assert_eq!(part.all_proven(), ids(&[commitment()]));
}

#[test]
fn an_invoice_waits_for_no_spends_of_commitments() {
    let mut part = Part::new();
    part.mine(&[commitment(), spend_of(&[0])]);
    part.look();
    assert!(part.proofs.awaited_until().is_some());
    part.ask_source().unwrap();
    part.phone_answers(&Answer::Done(Done {}));
    assert!(!part.proofs.due.is_empty());
    assert_eq!(part.proofs.awaited_until(), None);
}

#[test]
fn the_spends_of_a_channel_are_bounded() {
    let mut part = Part::new();
    let outputs: Vec<u32> = (0..1_001).collect();
    part.mine(&[commitment(), spend_of(&outputs)]);
    let close = part.proofs.proven[&KEYS].close.as_ref().unwrap();
    assert_eq!(close.commitment.as_ref().unwrap().spends.len(), 1_000);
    assert_eq!(part.all_proven().len(), 2);
}

fn at(byte: u8) -> InBlock {
    InBlock {
        block: block_hash(byte),
        txid: txid(byte + 1),
    }
}

fn closed(commitment: Option<Commitment>) -> Proven {
    Proven {
        close: Some(Close {
            at: at(5),
            commitment,
        }),
        ..open()
    }
}

#[test]
fn records_are_read_back_and_so_are_those_of_earlier_versions() {
    // As the first version wrote them.
    let mut old = vec![2; 32];
    old.extend([[1; 32].as_slice(), &[1, 0, 0, 0]].concat());
    assert_eq!(Proven::decode(&old), Some(open()));
    assert_eq!(open().encode(), old);
    old.extend([[5; 32], [6; 32]].concat());
    assert_eq!(Proven::decode(&old), Some(closed(None)));
    assert_eq!(closed(None).encode(), old);

    for spends in [0, 1, 2] {
        let spends = (0..spends).map(|output| {
            let spend = Spend {
                at: at(8),
                is_proven: output == 1,
            };
            (output, spend)
        });
        let spends: BTreeMap<u32, Spend> = spends.collect();
        for is_proven in [false, true] {
            let proven = closed(Some(Commitment {
                height: 800_000,
                is_proven,
                spends: spends.clone(),
            }));
            assert_eq!(Proven::decode(&proven.encode()), Some(proven));
        }
    }
}

#[test]
fn a_record_that_cannot_be_read_keeps_the_node_from_loading() {
    let spend = Spend {
        at: at(8),
        is_proven: true,
    };
    let proven = closed(Some(Commitment {
        height: 9,
        is_proven: true,
        spends: BTreeMap::from([(3, spend)]),
    }));
    let bytes = proven.encode();
    // Whole: the funding, a close, a commitment, and a spend of it.
    let whole = [68, 132, 137, bytes.len()];
    for length in 0..=bytes.len() {
        let entry = (schema::proven_key(&KEYS), bytes[..length].to_vec());
        let loaded = FundingProofs::load(&Journal::loading(vec![entry]));
        assert_eq!(loaded.is_ok(), whole.contains(&length), "{length}");
    }
    for at in [136, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] = 2;
        assert_eq!(Proven::decode(&bytes), None);
    }
}

/// What the node has sent to a phone that does not answer.
fn sent(world: &World, owner: Id) -> Vec<Txid> {
    let ops = world.nodes[owner].kept_ops();
    ops.iter().filter_map(proven_by).collect()
}

/// The transactions of the last block that spend an output of `close`.
fn spends_in_tip(world: &World, close: Txid) -> Vec<Txid> {
    let (_, txs) = world.blocks.last().unwrap();
    let spends = txs.iter().filter(|tx| {
        let mut inputs = tx.input.iter();
        inputs.any(|input| input.previous_output.txid == close)
    });
    spends.map(Transaction::compute_txid).collect()
}

/// The hub has closed the channel by force, with an HTLC that the owner's phone has then claimed. The phone was shown the close. Returns
/// its txid too; the claim is not in a block.
fn claimed_in_a_commitment() -> (Pair, Txid) {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.nodes[pair.owner].signer_hangs_at_preimage = true;
    pair.pay(pair.hub, &invoice);
    pair.phone_leaves();
    pair.world.nodes[pair.owner].signer_hangs_at_preimage = false;
    pair.force_close();
    let funding = pair.channel_funding();
    pair.world.mine(1);
    let (_, txs) = pair.world.blocks.last().unwrap();
    let mut txs = txs.iter();
    let close = txs.find(|tx| tx.input[0].previous_output.txid == funding);
    let close = close.unwrap().compute_txid();
    pair.world.fund(pair.owner, 1_000_000);
    pair.world.attach(pair.owner);
    pair.world.pass(Duration::from_secs(1));
    let signer = pair.world.nodes[pair.owner].signer.as_ref().unwrap();
    let is_shown = signer
        .seen_channels()
        .all(|it| it.close != SeenClose::Unknown);
    assert!(is_shown);
    (pair, close)
}

impl Pair {
    /// Whether the owner's node has the record of a channel's proofs.
    fn has_record(&self) -> bool {
        let mut names = self.world.nodes[self.owner].store.keys();
        names.any(|name| name.starts_with(key::PROVEN))
    }

    /// The transaction that funded the channel.
    fn channel_funding(&mut self) -> Txid {
        let records = self.world.nodes[self.owner].store.iter();
        let mut proven = records.filter(|(name, _)| name.starts_with(key::PROVEN));
        let (_, record) = proven.next().unwrap();
        Proven::decode(record).unwrap().outpoint.txid
    }
}

#[test]
fn an_htlc_that_is_claimed_in_a_commitment_is_proven_to_the_phone() {
    let (mut pair, close) = claimed_in_a_commitment();
    pair.world.nodes[pair.owner].signer_hangs = true;
    pair.world.mine(1);
    let spends = spends_in_tip(&pair.world, close);
    assert!(!spends.is_empty());
    let sent = sent(&pair.world, pair.owner);
    let [first] = &sent[..] else {
        panic!("not one proof: {sent:?}");
    };
    assert!(spends.contains(first));
}

#[test]
fn a_phone_that_was_away_when_an_htlc_was_claimed_is_shown_it() {
    let (mut pair, close) = claimed_in_a_commitment();
    let owner = pair.owner;
    pair.phone_leaves();
    pair.world.mine(1);
    let spends = spends_in_tip(&pair.world, close);
    pair.world.reload(owner);
    let attach = pair.world.attachment(owner, b"");
    pair.world.nodes[owner].inputs.push(attach);
    // It gets the header, and nothing else.
    pair.world.nodes[owner].signer_hangs = true;
    pair.world.settle();
    let sent = sent(&pair.world, owner);
    assert!(sent.len() == 1 && spends.contains(&sent[0]), "{sent:?}");
}

#[test]
fn the_record_of_a_cooperative_close_is_deleted_when_the_phone_was_shown_it() {
    let mut pair = Pair::new();
    let owner = pair.owner;
    let close = Kind::CloseChannel(CloseChannel {
        channel_id: pair.channel(owner).channel_id,
        ..CloseChannel::default()
    });
    pair.world.begin(owner, close);
    assert!(pair.has_record());
    pair.world.mine(1);
    pair.world.pass(Duration::from_secs(1));
    assert!(!pair.has_record());
}

#[test]
fn the_record_of_a_forced_close_stays_and_is_dropped_at_last() {
    let (mut pair, _) = claimed_in_a_commitment();
    let owner = pair.owner;
    pair.world.input(owner, Input::SignerLost);
    pair.world.mine(10);
    assert!(pair.has_record());
    pair.world.mine(KEPT_BLOCKS);
    pair.world.pass(Duration::from_secs(1));
    assert!(pair.has_record(), "the phone was not shown all");
    pair.world.mine(KEPT_BLOCKS);
    pair.world.pass(Duration::from_secs(1));
    assert!(!pair.has_record());
}
