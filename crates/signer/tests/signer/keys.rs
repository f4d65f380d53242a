//! A seed makes the keys that every other tool makes of it.

use std::str::FromStr;

use bitcoin::bip32::{DerivationPath, Xpriv};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Address, Network};
use lightning::ln::inbound_payment::ExpandedKey;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use longhand_signer::keys::Keys;
use longhand_signer::{Account, Keychain, Seed, SeedError};

const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
/// The 64 bytes of `WORDS` with the empty passphrase (BIP 39).
const SEED_BYTES: &str = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc19a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4";

fn keys() -> Keys {
    Keys::new(&Seed::from_words(WORDS).unwrap(), Network::Bitcoin).unwrap()
}

fn address(account: Account, keychain: Keychain, index: u32) -> String {
    let script = keys().script(account, keychain, index).unwrap();
    Address::from_script(&script, Network::Bitcoin)
        .unwrap()
        .to_string()
}

/// The 32 bytes that ldk-node gives to LDK: the private key of the seed's BIP 32 master.
fn ldk_seed() -> [u8; 32] {
    let bytes: Vec<u8> = bitcoin::hex::FromHex::from_hex(SEED_BYTES).unwrap();
    Xpriv::new_master(Network::Bitcoin, &bytes)
        .unwrap()
        .private_key
        .secret_bytes()
}

#[test]
fn bip_84_addresses_are_those_of_the_bip() {
    assert_eq!(
        address(Account::Bip84, Keychain::External, 0),
        "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"
    );
    assert_eq!(
        address(Account::Bip84, Keychain::External, 1),
        "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"
    );
    assert_eq!(
        address(Account::Bip84, Keychain::Internal, 0),
        "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"
    );
}

#[test]
fn bip_86_addresses_are_those_of_the_bip() {
    assert_eq!(
        address(Account::Bip86, Keychain::External, 0),
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
    );
    assert_eq!(
        address(Account::Bip86, Keychain::External, 1),
        "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"
    );
    assert_eq!(
        address(Account::Bip86, Keychain::Internal, 0),
        "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7"
    );
}

#[test]
fn descriptors_name_their_origin_and_account_key() {
    // The account xpub of BIP 86's vectors; the fingerprint is that of the master.
    let xpub = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
    let descriptor = keys()
        .descriptor(Account::Bip86, Keychain::Internal)
        .to_string();
    assert!(
        descriptor.starts_with(&format!("tr([73c5da0a/86'/0'/0']{xpub}/1/*)#")),
        "{descriptor}"
    );
    let external = keys()
        .descriptor(Account::Bip84, Keychain::External)
        .to_string();
    assert!(
        external.starts_with("wpkh([73c5da0a/84'/0'/0']xpub"),
        "{external}"
    );
    assert!(external.contains("/0/*)#"), "{external}");
}

#[test]
fn an_account_on_a_test_network_has_coin_type_1() {
    let keys = Keys::new(&Seed::from_words(WORDS).unwrap(), Network::Regtest).unwrap();
    assert!(
        keys.descriptor(Account::Bip84, Keychain::External)
            .contains("/84'/1'/0']tpub")
    );
}

#[test]
fn the_node_is_the_one_that_ldk_makes_of_the_master_key() {
    let secp = Secp256k1::new();
    let ldk_master = Xpriv::new_master(Network::Bitcoin, &ldk_seed()).unwrap();
    let node_key = ldk_master
        .derive_priv(&secp, &DerivationPath::from_str("m/0'").unwrap())
        .unwrap();
    assert_eq!(
        keys().node_id(),
        PublicKey::from_secret_key(&secp, &node_key.private_key)
    );
}

#[test]
fn a_registration_carries_the_keys_that_ldk_would_use() {
    let ldk = KeysManager::new(&ldk_seed(), 42, 42, true);
    let register = keys().register(Account::Bip84, 100);
    let inbound = ExpandedKey::new(register.inbound_payment_key.try_into().unwrap());
    assert!(inbound == ldk.get_expanded_key());
    assert_eq!(register.peer_storage_key, ldk.get_peer_storage_key().inner);
    assert_eq!(register.receive_auth_key, ldk.get_receive_auth_key().0);
    assert_eq!(
        register.node_id,
        ldk.get_node_id(Recipient::Node).unwrap().serialize()
    );
    assert_eq!(
        (register.network.as_str(), register.birthday_height),
        ("bitcoin", 100)
    );
}

#[test]
fn a_registration_carries_no_key_that_can_spend() {
    let register = keys().register(Account::Bip84, 0);
    assert!(
        !register.external_descriptor.contains("prv")
            && !register.internal_descriptor.contains("prv")
    );
    let fields = [
        &register.inbound_payment_key,
        &register.peer_storage_key,
        &register.receive_auth_key,
    ];
    assert!(
        fields
            .iter()
            .all(|key| key.as_slice() != ldk_seed().as_slice())
    );
}

#[test]
fn words_are_read_as_people_write_them() {
    let sloppy = format!("  {}\n", WORDS.replace(' ', "  ").to_uppercase());
    assert_eq!(Seed::from_words(&sloppy).unwrap().words().as_str(), WORDS);
}

#[test]
fn entropy_makes_12_or_24_words() {
    assert_eq!(
        Seed::from_entropy(&[0; 16]).unwrap().words().as_str(),
        WORDS
    );
    let long = Seed::from_entropy(&[0; 32]).unwrap();
    assert_eq!(long.words().split(' ').count(), 24);
    assert!(long.words().ends_with(" art"));
    assert_eq!(Seed::from_entropy(&[0; 20]).unwrap_err(), SeedError::Length);
}

#[test]
fn wrong_words_say_what_is_wrong() {
    assert_eq!(
        Seed::from_words("abandon about").unwrap_err(),
        SeedError::Length
    );
    assert_eq!(
        Seed::from_words(&WORDS.replacen("abandon", "abandom", 1)).unwrap_err(),
        SeedError::Word(1)
    );
    assert_eq!(
        Seed::from_words(&WORDS.replace("about", "abandon")).unwrap_err(),
        SeedError::Checksum
    );
}

#[test]
fn a_seed_never_prints() {
    assert_eq!(
        format!("{:?}", Seed::from_words(WORDS).unwrap()),
        "Seed(..)"
    );
}
