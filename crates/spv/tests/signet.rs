//! Blocks of a signet are those that its signers have signed.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, Network, ScriptBuf};
use common::NOW;
use longhand_spv::signet::default_challenge;
use longhand_spv::{Checkpoint, Extended, HeaderError, Headers, Params, SignetError, SignetProof};

/// Blocks 1 to 4 of the default signet.
const BLOCKS: [&str; 4] = [
    "00000020f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000f575c83235984e7dc4afc1f30944c170462e84437ab6f2d52e16878a79e4678bd1914d5fae77031eccf4070001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025151feffffff0200f2052a010000001600149243f727dd5343293eb83174324019ec16c2630f0000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa2490047304402205e423a8754336ca99dbe16509b877ef1bf98d008836c725005b3c787c41ebe46022047246e4467ad7cc7f1ad98662afcaf14c115e0095a227c7b05c5182591c23e7e01000120000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000020533b53ded9bff4adc94101d32400a144c54edc5ed492a3b26c63b2d686000000b38fef50592017cfafbcab88eb3d9cf50b2c801711cad8299495d26df5e54812e7914d5fae77031ecfdd0b0001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025251feffffff0200f2052a01000000160014fd09839740f0e0b4fc6d5e2527e4022aa9b89dfa0000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa24900473044022031d64a1692cdad1fc0ced69838169fe19ae01be524d831b95fcf5ea4e6541c3c02204f9dea0801df8b4d0cd0857c62ab35c6c25cc47c930630dc7fe723531daa3e9b01000120000000000000000000000000000000000000000000000000000000000000000000000000",
    "000000202960f3752f0bfa8858a3e333294aedc7808025e868c9dc03e71d88bb320000007765fcd3d5b4966beb338bba2675dc2cf2ad28d4ad1d83bdb6f286e7e27ac1f807924d5fae77031e81d60b0001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025351feffffff0200f2052a010000001600141e5fb426042692ae0e87c070e78c39307a5661c20000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa2490047304402205de93694763a42954865bcf1540cb82958bc62d0ec4eee02070fb7937cd037f4022067f333753bce47b10bc25eb6e1f311482e994c862a7e0b2d41ab1c8679fd1b1101000120000000000000000000000000000000000000000000000000000000000000000000000000",
    "00000020b06443a13ae1d3d50faef5ecad38c6818194dc46abca3e972e2aacdae800000069a5829097e80fee00ac49a56ea9f82d741a6af84d32b3bc455cf31871e2a8ac27924d5fae77031e9c91050001010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025451feffffff0200f2052a0100000016001430db2f8225dcf7751361ab38735de08190318cb70000000000000000776a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf94c4fecc7daa2490047304402200936f5f9872f6df5dd242026ad52241a68423f7f682e79169a8d85a374eab9b802202cd2979c48b321b3453e65e8f92460db3fca93cbea8539b450c959f4fbe630c601000120000000000000000000000000000000000000000000000000000000000000000000000000",
];

fn blocks() -> [Block; 4] {
    BLOCKS.map(|hex| deserialize_hex(hex).unwrap())
}

fn signet(params: Params) -> Headers {
    Headers::new(params, Checkpoint::genesis(Network::Signet))
}

/// The network's magic is the hash of its challenge (BIP 325).
#[test]
fn the_default_challenge_is_that_of_the_default_signet() {
    let challenge = default_challenge();
    let mut bytes = vec![u8::try_from(challenge.len()).unwrap()];
    bytes.extend(challenge.as_bytes());
    let hash = sha256d::Hash::hash(&bytes);
    assert_eq!(
        hash.as_byte_array()[..4],
        Network::Signet.magic().to_bytes()
    );
}

#[test]
fn blocks_of_the_default_signet_are_followed() {
    let blocks = blocks();
    let headers = blocks.clone().map(|block| block.header);
    let proofs = blocks.map(|block| {
        let bytes = SignetProof::prove(&block).unwrap().encode();
        SignetProof::decode(&bytes).unwrap()
    });
    let mut chain = signet(Params::of(Network::Signet));
    assert!(matches!(
        chain.extend_signed(&headers, &proofs, NOW),
        Ok(Extended::Appended { count: 4, .. })
    ));
    assert_eq!(chain.height(), 4);
    // What is known needs no solution again.
    let wrong = [&proofs[1..], &proofs[..1]].concat();
    assert_eq!(
        chain.extend_signed(&headers, &wrong, NOW),
        Ok(Extended::Known)
    );
    let mut other = signet(Params::of(Network::Signet));
    assert_eq!(
        other.extend_signed(&headers, &wrong, NOW),
        Err(HeaderError::Signet {
            height: 1,
            source: SignetError::Root
        })
    );
    assert_eq!(
        other.extend_signed(&headers, &proofs[..3], NOW),
        Err(HeaderError::Solutions {
            headers: 4,
            solutions: 3
        })
    );
    assert_eq!(other.height(), 0);
}

/// Both keys instead of one of the two, as Bitcoin Core's own test has it.
#[test]
fn another_challenge_is_not_solved() {
    let [block, ..] = blocks();
    let proof = SignetProof::prove(&block).unwrap();
    assert_eq!(proof.verify(&block.header, &default_challenge()), Ok(()));
    let mut both = default_challenge().into_bytes();
    both[0] = 0x52;
    let both = ScriptBuf::from_bytes(both);
    assert_eq!(proof.verify(&block.header, &both), Err(SignetError::Wrong));
    let of_another_kind = ScriptBuf::from_bytes(vec![0x51, 0x51]);
    assert_eq!(
        proof.verify(&block.header, &of_another_kind),
        Err(SignetError::Unsupported)
    );
    let taproot = ScriptBuf::from_bytes([&[0x51, 0x20][..], &[1; 32]].concat());
    assert_eq!(
        proof.verify(&block.header, &taproot),
        Err(SignetError::Unsupported)
    );
    // Everybody solves this one.
    let trivial = ScriptBuf::from_bytes(vec![0x51]);
    assert_eq!(proof.verify(&block.header, &trivial), Ok(()));
}

#[test]
fn a_proof_that_is_wrong_by_one_bit_is_refused() {
    let [block, ..] = blocks();
    let bytes = SignetProof::prove(&block).unwrap().encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << bit;
            let verified = SignetProof::decode(&wrong)
                .and_then(|proof| proof.verify(&block.header, &default_challenge()));
            assert!(verified.is_err(), "byte {at}, bit {bit}");
        }
        assert!(SignetProof::decode(&bytes[..at]).is_err());
    }
}

/// What the signature covers: not the nonce, but time, version, the block before, and every transaction.
#[test]
fn a_signature_is_good_for_its_block_alone() {
    let [block, ..] = blocks();
    let challenge = default_challenge();
    let proof = SignetProof::prove(&block).unwrap();
    let mut mined_again = block.header;
    mined_again.nonce += 1;
    assert_eq!(proof.verify(&mined_again, &challenge), Ok(()));
    let mut later = block.header;
    later.time += 1;
    assert_eq!(proof.verify(&later, &challenge), Err(SignetError::Wrong));

    let mut stolen = block.clone();
    stolen.txdata[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51]);
    stolen.header.merkle_root = stolen.compute_merkle_root().unwrap();
    let proof = SignetProof::prove(&stolen).unwrap();
    assert_eq!(
        proof.verify(&stolen.header, &challenge),
        Err(SignetError::Wrong)
    );

    let mut unsigned = block.clone();
    unsigned.txdata[0].output[1].script_pubkey =
        ScriptBuf::from_bytes(block.txdata[0].output[1].script_pubkey.as_bytes()[..38].to_vec());
    unsigned.header.merkle_root = unsigned.compute_merkle_root().unwrap();
    let proof = SignetProof::prove(&unsigned).unwrap();
    assert_eq!(
        proof.verify(&unsigned.header, &challenge),
        Err(SignetError::NoSolution)
    );
    unsigned.txdata[0].output.pop();
    unsigned.header.merkle_root = unsigned.compute_merkle_root().unwrap();
    let proof = SignetProof::prove(&unsigned).unwrap();
    assert_eq!(
        proof.verify(&unsigned.header, &challenge),
        Err(SignetError::Commitment)
    );
}

/// Signs a block for a challenge as a signet's miner does.
mod miner {
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
    use bitcoin::sighash::{EcdsaSighashType, SighashCache};
    use bitcoin::{
        Amount, Block, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
        transaction::Version,
    };

    use super::common;

    pub fn key(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 32]).unwrap()
    }

    pub fn public(byte: u8) -> PublicKey {
        PublicKey::new(key(byte).public_key(&Secp256k1::new()))
    }

    /// The output that commits, with a push of these bytes.
    fn commitment(push: &[u8]) -> ScriptBuf {
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend([0; 32]);
        let length = u16::try_from(push.len()).unwrap();
        let [low, high] = length.to_le_bytes();
        match length {
            ..=0x4b => script.push(low),
            0x4c..=0xff => script.extend([0x4c, low]),
            _ => script.extend([0x4d, low, high]),
        }
        script.extend(push);
        ScriptBuf::from_bytes(script)
    }

    fn one_input(input: TxIn, script_pubkey: ScriptBuf) -> Transaction {
        Transaction {
            version: Version(0),
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![TxOut {
                value: Amount::ZERO,
                script_pubkey,
            }],
        }
    }

    /// A block with three transactions that keys sign whose witness script, if any, is this one.
    pub fn block(challenge: &ScriptBuf, keys: &[u8], script: Option<&ScriptBuf>) -> Block {
        let others = [1, 2].map(|at| common::spend(common::outpoint(at), common::p2wsh(at)));
        let mut block = common::block(&common::genesis(), 1, 0, others);
        let header = [0xec, 0xc7, 0xda, 0xa2];
        block.txdata[0].output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: commitment(&header),
        });
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        let mut data = vec![0, 72];
        data.extend(&serialize(&block.header)[..72]);
        let to_spend = one_input(
            TxIn {
                previous_output: OutPoint::null(),
                script_sig: ScriptBuf::from_bytes(data),
                sequence: Sequence::ZERO,
                witness: Witness::new(),
            },
            challenge.clone(),
        );
        let to_sign = one_input(
            TxIn {
                previous_output: OutPoint::new(to_spend.compute_txid(), 0),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ZERO,
                witness: Witness::new(),
            },
            ScriptBuf::from_bytes(vec![0x6a]),
        );
        let witness = witness(challenge, &to_sign, keys, script);
        let solution = [&header[..], &[0], &serialize(&witness)].concat();
        block.txdata[0].output[1].script_pubkey = commitment(&solution);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        block
    }

    fn witness(
        challenge: &ScriptBuf,
        to_sign: &Transaction,
        keys: &[u8],
        script: Option<&ScriptBuf>,
    ) -> Witness {
        let mut cache = SighashCache::new(to_sign);
        let all = EcdsaSighashType::All;
        let hash = match script {
            Some(script) => cache.p2wsh_signature_hash(0, script, Amount::ZERO, all),
            None => cache
                .p2wpkh_signature_hash(0, challenge, Amount::ZERO, all)
                .map_err(|_| unreachable!()),
        };
        let message = Message::from_digest(hash.unwrap().to_byte_array());
        let mut witness = Witness::new();
        if script.is_some() {
            witness.push([]);
        }
        for byte in keys {
            let signature = Secp256k1::new().sign_ecdsa(&message, &key(*byte));
            witness.push([&signature.serialize_der()[..], &[1]].concat());
        }
        match script {
            Some(script) => witness.push(script.as_bytes()),
            None => witness.push(public(keys[0]).to_bytes()),
        }
        witness
    }
}

#[test]
fn other_challenges_are_solved_by_their_signers() {
    let key = miner::public(1);
    let p2wpkh = ScriptBuf::new_p2wpkh(&key.wpubkey_hash().unwrap());
    let two_of_three = bitcoin::script::Builder::new()
        .push_int(2)
        .push_key(&miner::public(1))
        .push_key(&miner::public(2))
        .push_key(&miner::public(3))
        .push_int(3)
        .push_opcode(bitcoin::opcodes::all::OP_CHECKMULTISIG)
        .into_script();
    let p2wsh = two_of_three.to_p2wsh();
    for (challenge, keys, script, expected) in [
        (&p2wpkh, &[1][..], None, Ok(())),
        (&p2wpkh, &[2], None, Err(SignetError::Wrong)),
        (&p2wsh, &[1, 3], Some(&two_of_three), Ok(())),
        (
            &p2wsh,
            &[3, 1],
            Some(&two_of_three),
            Err(SignetError::Wrong),
        ),
        (
            &p2wsh,
            &[1, 4],
            Some(&two_of_three),
            Err(SignetError::Wrong),
        ),
        (&p2wsh, &[1], Some(&two_of_three), Err(SignetError::Wrong)),
    ] {
        let block = miner::block(challenge, keys, script);
        let proof = SignetProof::prove(&block).unwrap();
        assert_eq!(proof.branch.len(), 2);
        assert_eq!(
            proof.verify(&block.header, challenge),
            expected,
            "{challenge} {keys:?}"
        );
    }
}
