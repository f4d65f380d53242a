//! Filters of blocks of testnet3, of BIP 158's own vectors (`bip-0158/testnet-19.json`).
#![allow(clippy::unwrap_used)]

use bitcoin::bip158::FilterHeader;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hex::FromHex;
use bitcoin::{Block, ScriptBuf};
use longhand_spv::filter::filter_hash;
use longhand_spv::{Filter, FilterError};

struct Vector {
    note: &'static str,
    hash: &'static str,
    block: &'static str,
    /// What the block spends from.
    scripts: &'static [&'static str],
    before: &'static str,
    filter: &'static str,
    header: &'static str,
}

const VECTORS: [Vector; 6] = [
    Vector {
        note: "block 0",
        hash: "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        block: "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff001d1aa4ae180101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000",
        scripts: &[],
        before: "0000000000000000000000000000000000000000000000000000000000000000",
        filter: "019dfca8",
        header: "21584579b7eb08997773e5aeff3a7f932700042d0ed2a6129012b7d7ae81b750",
    },
    Vector {
        note: "block 2",
        hash: "000000006c02c8ea6e4ff69651f7fcde348fb9d557a06e6957b65552002a7820",
        block: "0100000006128e87be8b1b4dea47a7247d5528d2702c96826c7a648497e773b800000000e241352e3bec0a95a6217e10c3abb54adfa05abb12c126695595580fb92e222032e7494dffff001d00d235340101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0e0432e7494d010e062f503253482fffffffff0100f2052a010000002321038a7f6ef1c8ca0c588aa53fa860128077c9e6c11e6830f4d7ee4e763a56b7718fac00000000",
        scripts: &[],
        before: "d7bdac13a59d745b1add0d2ce852f1a0442e8945fc1bf3848d3cbffd88c24fe1",
        filter: "0174a170",
        header: "186afd11ef2b5e7e3504f2e8cbf8df28a1fd251fe53d60dff8b1467d1b386cf0",
    },
    Vector {
        note: "block 3",
        hash: "000000008b896e272758da5297bcd98fdc6d97c9b765ecec401e286dc1fdbe10",
        block: "0100000020782a005255b657696ea057d5b98f34defcf75196f64f6eeac8026c0000000041ba5afc532aae03151b8aa87b65e1594f97504a768e010c98c0add79216247186e7494dffff001d058dc2b60101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0e0486e7494d0151062f503253482fffffffff0100f2052a01000000232103f6d9ff4c12959445ca5549c811683bf9c88e637b222dd2e0311154c4c85cf423ac00000000",
        scripts: &[],
        before: "186afd11ef2b5e7e3504f2e8cbf8df28a1fd251fe53d60dff8b1467d1b386cf0",
        filter: "016cf7a0",
        header: "8d63aadf5ab7257cb6d2316a57b16f517bff1c6388f124ec4c04af1212729d2a",
    },
    Vector {
        note: "block 987,876, whose coinbase pays to a script that cannot be read",
        hash: "0000000000000c00901f2049055e2a437c819d79a3d54fd63e6af796cd7b8a79",
        block: "000000202694f74969fdb542090e95a56bc8aa2d646e27033850e32f1c5f000000000000f7e53676b3f12d5beb524ed617f2d25f5a93b5f4f52c1ba2678260d72712f8dd0a6dfe5740257e1a4b1768960101000000010000000000000000000000000000000000000000000000000000000000000000ffffffff1603e4120ff9c30a1c216900002f424d4920546573742fffffff0001205fa012000000001e76a914c486de584a735ec2f22da7cd9681614681f92173d83d0aa68688ac00000000",
        scripts: &[],
        before: "fe4d230dbb0f4fec9bed23a5283e08baf996e3f32b93f52c7de1f641ddfd04ad",
        filter: "010c0b40",
        header: "0965a544743bbfa36f254446e75630c09404b3d164a261892372977538928ed5",
    },
    Vector {
        note: "block 1,263,442, with witnesses",
        hash: "000000006f27ddfe1dd680044a34548f41bed47eba9e6f0b310da21423bc5f33",
        block: "000000201c8d1a529c39a396db2db234d5ec152fa651a2872966daccbde028b400000000083f14492679151dbfaa1a825ef4c18518e780c1f91044180280a7d33f4a98ff5f45765aaddc001d38333b9a02010000000001010000000000000000000000000000000000000000000000000000000000000000ffffffff230352471300fe5f45765afe94690a000963676d696e6572343208000000000000000000ffffffff024423a804000000001976a914f2c25ac3d59f3d674b1d1d0a25c27339aaac0ba688ac0000000000000000266a24aa21a9edcb26cb3052426b9ebb4d19c819ef87c19677bbf3a7c46ef0855bd1b2abe83491012000000000000000000000000000000000000000000000000000000000000000000000000002000000000101d20978463906ba4ff5e7192494b88dd5eb0de85d900ab253af909106faa22cc5010000000004000000014777ff000000000016001446c29eabe8208a33aa1023c741fa79aa92e881ff0347304402207d7ca96134f2bcfdd6b536536fdd39ad17793632016936f777ebb32c22943fda02206014d2fb8a6aa58279797f861042ba604ebd2f8f61e5bddbd9d3be5a245047b201004b632103eeaeba7ce5dc2470221e9517fb498e8d6bd4e73b85b8be655196972eb9ccd5566754b2752103a40b74d43df244799d041f32ce1ad515a6cd99501701540e38750d883ae21d3a68ac00000000",
        scripts: &["002027a5000c7917f785d8fc6e5a55adfca8717ecb973ebb7743849ff956d896a7ed"],
        before: "31d66d516a9eda7de865df29f6ef6cb8e4bf9309e5dac899968a9a62a5df61e3",
        filter: "0385acb4f0fe889ef0",
        header: "4e6d564c2a2452065c205dd7eb2791124e0c4e0dbb064c410c24968572589dec",
    },
    Vector {
        note: "block 1,414,221, which pays to an empty script",
        hash: "0000000000000027b2b3b3381f114f674f481544ff2be37ae3788d7e078383b1",
        block: "000000204ea88307a7959d8207968f152bedca5a93aefab253f1fb2cfb032a400000000070cebb14ec6dbc27a9dfd066d9849a4d3bac5f674665f73a5fe1de01a022a0c851fda85bf05f4c19a779d1450102000000010000000000000000000000000000000000000000000000000000000000000000ffffffff18034d94154d696e6572476174653030310d000000f238f401ffffffff01c817a804000000000000000000",
        scripts: &[],
        before: "5e5e12d90693c8e936f01847859404c67482439681928353ca1296982042864e",
        filter: "00",
        header: "021e8882ef5a0ed932edeebbecfeda1d7ce528ec7b3daa27641acf1189d7b5dc",
    },
];

#[test]
fn filters_of_the_vectors_have_what_their_blocks_have() {
    for vector in VECTORS {
        let block: Block = deserialize_hex(vector.block).unwrap();
        assert_eq!(
            block.block_hash().to_string(),
            vector.hash,
            "{}",
            vector.note
        );
        assert!(block.check_merkle_root(), "{}", vector.note);
        let bytes = Vec::from_hex(vector.filter).unwrap();
        let before: FilterHeader = vector.before.parse().unwrap();
        let header = filter_hash(&bytes).filter_header(&before);
        assert_eq!(header.to_string(), vector.header, "{}", vector.note);

        let filter = Filter::parse(block.block_hash(), &bytes).unwrap();
        assert!(filter.has_outputs_of(&block), "{}", vector.note);
        for script in vector.scripts {
            let script = ScriptBuf::from_hex(script).unwrap();
            assert!(filter.matches(&script), "{}", vector.note);
        }
        for other in 0..200u8 {
            let script = ScriptBuf::from_bytes(vec![0x51, 2, other, 7]);
            assert!(!filter.matches(&script), "{}", vector.note);
        }
        // Cut, or with a byte more, it is none.
        for length in 0..bytes.len() {
            let cut = Filter::parse(block.block_hash(), &bytes[..length]);
            assert_eq!(cut.unwrap_err(), FilterError::Malformed, "{}", vector.note);
        }
        let long = [&bytes[..], &[0]].concat();
        let long = Filter::parse(block.block_hash(), &long);
        assert_eq!(long.unwrap_err(), FilterError::Malformed, "{}", vector.note);
    }
}

/// Counts that would overflow, or take memory.
#[test]
fn filters_that_say_too_much_are_refused() {
    let block: Block = deserialize_hex(VECTORS[0].block).unwrap();
    let parse = |bytes: &[u8]| Filter::parse(block.block_hash(), bytes).unwrap_err();
    for bytes in [
        &[][..],
        &[0xff; 9],
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0, 0, 0],
        &[0xfd, 0, 0],
        &[2, 0x9d, 0xfc, 0xa8],
        // Not all of the last byte is used, and what is left is not zero.
        &[1, 0x9d, 0xfc, 0xa9],
        // Ones without an end, and a value that is too large.
        &[1, 0xff, 0xff, 0xff],
        &[1, 0xff, 0xff, 0, 0, 0],
    ] {
        assert_eq!(parse(bytes), FilterError::Malformed, "{bytes:?}");
    }
    assert!(matches!(parse(&vec![0; 1 << 21]), FilterError::TooLong(_)));
}
