//! Blocks of a signet are signed (BIP 325): proof of work alone proves nothing there, for it is easy.
//!
//! The coinbase of a block has a solution of the network's challenge, a script. A [`SignetProof`] is that coinbase with its branch: some 500
//! bytes a block.

use bitcoin::absolute::LockTime;
use bitcoin::block::Header;
use bitcoin::blockdata::script::{Builder, Instruction, PushBytesBuf};
use bitcoin::consensus::{Decodable, serialize};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_RETURN};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::sighash::Prevouts;
use bitcoin::{
    Amount, Block, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, transaction,
};
use miniscript::interpreter::Interpreter;

use crate::bytes::Reader;
use crate::merkle::{self, MAX_DEPTH, MAX_TRANSACTION_BYTES, NODE_BYTES};

/// What a push begins with that has a solution.
const SOLUTION_HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];
/// What the output begins with that commits to the block's witnesses (BIP 141), and how long it is without further data.
const COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const COMMITMENT_BYTES: usize = 38;
const VERSION: u8 = 1;

/// The keys of the default signet: a 1-of-2.
const DEFAULT_CHALLENGE: [u8; 71] = *b"\x51\
\x21\x03\xad\x5e\x0e\xda\xd1\x8c\xb1\xf0\xfc\x0d\x28\xa3\xd4\xf1\xf3\xe4\x45\x64\x03\x37\x48\x9a\xbb\x10\x40\x4f\x2d\x1e\x08\x6b\xe4\x30\
\x21\x03\x59\xef\x50\x21\x96\x4f\xe2\x2d\x6f\x8e\x05\xb2\x46\x3c\x95\x40\xce\x96\x88\x3f\xe3\xb2\x78\x76\x0f\x04\x8f\x51\x89\xf2\xe6\xc4\
\x52\xae";

/// The challenge of the default signet.
pub fn default_challenge() -> ScriptBuf {
    ScriptBuf::from_bytes(DEFAULT_CHALLENGE.to_vec())
}

/// Whether everybody solves it: `OP_TRUE`, of which the solution may be left out.
pub fn is_trivial(challenge: &Script) -> bool {
    challenge.as_bytes() == [OP_PUSHNUM_1.to_u8()]
}

/// The reason for which a block's solution is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignetError {
    /// Bytes that are no proof.
    #[error("the bytes are no proof of a signet's block: ask for it again")]
    Malformed,
    /// Of another version.
    #[error("the proof is of version {0}, which this program does not know: update")]
    Version(u8),
    /// The first transaction is no coinbase, has a witness, or is of a length that proves nothing.
    #[error(
        "the block's first transaction is not in the form of one that pays a miner: the proof is forged"
    )]
    Coinbase,
    /// The branch does not lead to the header's root.
    #[error("the coinbase transaction is not in the block: the proof is forged")]
    Root,
    /// The coinbase does not commit to witnesses, as every block of a signet does.
    #[error(
        "the coinbase transaction has no commitment to witnesses: no signet takes such a block"
    )]
    Commitment,
    /// There is no solution, or bytes that are none.
    #[error(
        "the block has no solution of the signet's challenge: it was not made by the signet's signers"
    )]
    NoSolution,
    /// The solution does not solve the challenge.
    #[error(
        "the block's solution does not solve the signet's challenge: it was not made by the signet's signers"
    )]
    Wrong,
    /// The kind of challenge is not known here.
    #[error(
        "the challenge of this signet is of a kind that is not supported; those are OP_TRUE, keys, multisig, p2pkh, p2wpkh and p2wsh with a miniscript"
    )]
    Unsupported,
}

/// Why a block is one of a signet. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignetProof {
    /// The block's first transaction without its witness.
    pub coinbase: Transaction,
    /// The nodes beside its way to the root, the lowest first.
    pub branch: Vec<TxMerkleNode>,
}

impl SignetProof {
    /// Makes one from the whole block; `None` for a block without transactions.
    pub fn prove(block: &Block) -> Option<SignetProof> {
        Some(SignetProof {
            coinbase: merkle::without_witness(block.txdata.first()?),
            branch: merkle::branch(merkle::leaves(&block.txdata), 0),
        })
    }

    /// Whether the block of this header solves the challenge.
    ///
    /// # Errors
    /// See [`SignetError`].
    pub fn verify(&self, header: &Header, challenge: &Script) -> Result<(), SignetError> {
        let coinbase = &self.coinbase;
        let is_plain = coinbase.is_coinbase()
            && !merkle::has_witness(coinbase)
            && coinbase.base_size() != NODE_BYTES;
        if !is_plain || coinbase.base_size() > MAX_TRANSACTION_BYTES {
            return Err(SignetError::Coinbase);
        }
        if self.root(coinbase) != Some(header.merkle_root) {
            return Err(SignetError::Root);
        }
        let (unsigned, solution) = take_solution(coinbase)?;
        let root = self.root(&unsigned).ok_or(SignetError::Root)?;
        let to_spend = to_spend(header, root, challenge);
        let to_sign = to_sign(&to_spend, solution.as_deref())?;
        check_script(challenge, &to_spend, &to_sign)
    }

    fn root(&self, coinbase: &Transaction) -> Option<TxMerkleNode> {
        merkle::root(coinbase.compute_txid().into(), 0, &self.branch)
    }

    /// As bytes: version 1 (1 byte), levels (1), the branch (32 each), the coinbase after its length (4, little-endian).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.push(u8::try_from(self.branch.len()).unwrap_or(u8::MAX));
        merkle::put_branch(&mut bytes, &self.branch);
        merkle::put_transaction(&mut bytes, &self.coinbase);
        bytes
    }

    /// The most bytes that it takes.
    pub const MAX_BYTES: usize = 1 + 1 + 32 * MAX_DEPTH + 4 + MAX_TRANSACTION_BYTES;

    /// Reads [`SignetProof::encode`]'s bytes.
    ///
    /// # Errors
    /// They are of another version, or no proof.
    pub fn decode(bytes: &[u8]) -> Result<SignetProof, SignetError> {
        let mut reader = Reader::new(bytes);
        match reader.u8() {
            Some(VERSION) => {}
            Some(version) => return Err(SignetError::Version(version)),
            None => return Err(SignetError::Malformed),
        }
        let mut read = || {
            let depth = reader.u8()?;
            let branch = merkle::read_branch(&mut reader, depth)?;
            let coinbase = merkle::read_transaction(&mut reader)?;
            reader
                .is_empty()
                .then_some(SignetProof { coinbase, branch })
        };
        read().ok_or(SignetError::Malformed)
    }
}

/// The coinbase as it was signed, its solution left out, and the solution.
fn take_solution(coinbase: &Transaction) -> Result<(Transaction, Option<Vec<u8>>), SignetError> {
    let is_commitment = |output: &TxOut| {
        let script = output.script_pubkey.as_bytes();
        script.len() >= COMMITMENT_BYTES && script.starts_with(&COMMITMENT_HEADER)
    };
    let at = coinbase.output.iter().rposition(is_commitment);
    let at = at.ok_or(SignetError::Commitment)?;
    let mut unsigned = coinbase.clone();
    let script = &mut unsigned.output[at].script_pubkey;
    let solution = split_script(script);
    let solution = solution.map(|(rest, solution)| {
        *script = rest;
        solution
    });
    Ok((unsigned, solution))
}

/// A script without the first push that has a solution, of which the header stays; and the solution.
fn split_script(script: &Script) -> Option<(ScriptBuf, Vec<u8>)> {
    let mut rest = Builder::new();
    let mut solution = None;
    // A script that ends early ends there.
    for instruction in script.instructions().map_while(Result::ok) {
        rest = match instruction {
            Instruction::Op(op) => rest.push_opcode(op),
            Instruction::PushBytes(push) if push.is_empty() => rest.push_opcode(OP_0),
            Instruction::PushBytes(push) => {
                let found = push.as_bytes().strip_prefix(&SOLUTION_HEADER);
                match found.filter(|found| !found.is_empty() && solution.is_none()) {
                    Some(found) => {
                        solution = Some(found.to_vec());
                        rest.push_slice(SOLUTION_HEADER)
                    }
                    None => rest.push_slice(push),
                }
            }
        };
    }
    solution.map(|solution| (rest.into_script(), solution))
}

/// The first of the two transactions that are signed in the place of a block (BIP 325).
fn to_spend(header: &Header, root: TxMerkleNode, challenge: &Script) -> Transaction {
    let mut data = Vec::with_capacity(72);
    data.extend(serialize(&header.version));
    data.extend(header.prev_blockhash.to_byte_array());
    data.extend(root.to_byte_array());
    data.extend(header.time.to_le_bytes());
    // 72 bytes are never too long for a push.
    let data = PushBytesBuf::try_from(data).unwrap_or_default();
    let script_sig = Builder::new().push_opcode(OP_0).push_slice(data);
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: script_sig.into_script(),
        sequence: Sequence::ZERO,
        witness: Witness::new(),
    };
    virtual_transaction(input, challenge.to_owned())
}

/// The second, which spends the first with the solution.
fn to_sign(to_spend: &Transaction, solution: Option<&[u8]>) -> Result<Transaction, SignetError> {
    let (script_sig, witness) = match solution {
        Some(solution) => read_solution(solution).ok_or(SignetError::NoSolution)?,
        None => Default::default(),
    };
    let input = TxIn {
        previous_output: OutPoint::new(to_spend.compute_txid(), 0),
        script_sig,
        sequence: Sequence::ZERO,
        witness,
    };
    let output = Builder::new().push_opcode(OP_RETURN).into_script();
    Ok(virtual_transaction(input, output))
}

fn virtual_transaction(input: TxIn, script_pubkey: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version(0),
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey,
        }],
    }
}

fn read_solution(mut bytes: &[u8]) -> Option<(ScriptBuf, Witness)> {
    let script_sig = ScriptBuf::consensus_decode(&mut bytes).ok()?;
    let witness = Witness::consensus_decode(&mut bytes).ok()?;
    bytes.is_empty().then_some((script_sig, witness))
}

fn check_script(
    challenge: &Script,
    to_spend: &Transaction,
    to_sign: &Transaction,
) -> Result<(), SignetError> {
    let input = &to_sign.input[0];
    if is_trivial(challenge) {
        return Ok(());
    }
    // A signet's blocks are not checked by the rules of taproot, and other scripts may be none of miniscript.
    let is_known = challenge.is_multisig()
        || challenge.is_p2pk()
        || challenge.is_p2pkh()
        || challenge.is_p2wpkh()
        || challenge.is_p2wsh();
    if !is_known {
        return Err(SignetError::Unsupported);
    }
    if input.script_sig.is_empty() && input.witness.is_empty() {
        return Err(SignetError::NoSolution);
    }
    let challenge = challenge.to_owned();
    let interpreter = Interpreter::from_txdata(
        &challenge,
        &input.script_sig,
        &input.witness,
        input.sequence,
        to_sign.lock_time,
    )
    .map_err(|_| SignetError::Wrong)?;
    let secp = Secp256k1::verification_only();
    let prevouts = Prevouts::All(&to_spend.output);
    let mut steps = interpreter.iter(&secp, to_sign, 0, &prevouts);
    match steps.all(|step| step.is_ok()) {
        true => Ok(()),
        false => Err(SignetError::Wrong),
    }
}
