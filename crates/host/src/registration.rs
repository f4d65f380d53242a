//! Checks of a [`Registration`], and of the phone that sends it, before it is stored: a node is built on it for years.

use std::str::FromStr;

use bdk_wallet::miniscript::descriptor::Wildcard;
use bdk_wallet::miniscript::{Descriptor, DescriptorPublicKey};
use bitcoin::bip32::{ChildNumber, DerivationPath};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{Network, NetworkKind};
use longhand_base::text::excerpt;
use longhand_bolt8::ActOne;
use longhand_node::Registration;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Ecdh, SignerBatch, SignerOp, SignerReply};

/// The longest descriptor in bytes: those of phones have some 150.
const MAX_DESCRIPTOR: usize = 256;

/// Why a registration is refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error("the registration's {0}: update the phone's software")]
    Invalid(String),
    #[error(
        "the phone is set up for {found}, this host runs on {expected}: use a phone set up for {expected}"
    )]
    WrongNetwork { expected: Network, found: String },
}

/// The node id of a registration that can be run on `network`.
pub(crate) fn check(
    registration: &Registration,
    network: Network,
) -> Result<PublicKey, RegistrationError> {
    let invalid = |text: String| Err(RegistrationError::Invalid(text));
    if Network::from_str(&registration.network) != Ok(network) {
        let found = excerpt(&registration.network).chars().take(20).collect();
        return Err(RegistrationError::WrongNetwork {
            expected: network,
            found,
        });
    }
    let Ok(node_id) = PublicKey::from_slice(&registration.node_id) else {
        return invalid("node id is not a point of secp256k1".into());
    };
    let keys = [
        ("inbound payment key", &registration.inbound_payment_key),
        ("peer storage key", &registration.peer_storage_key),
        ("receive auth key", &registration.receive_auth_key),
    ];
    if let Some((name, _)) = keys.iter().find(|(_, key)| key.len() != 32) {
        return invalid(format!("{name} has not 32 bytes"));
    }
    let descriptors = [
        ("external", &registration.external_descriptor),
        ("internal", &registration.internal_descriptor),
    ];
    for (keychain, (name, text)) in (0..).zip(descriptors) {
        if let Err(reason) = check_descriptor(text, keychain, network) {
            return invalid(format!("{name} descriptor {reason}"));
        }
    }
    Ok(node_id)
}

/// A descriptor of one keychain of an account, BIP 84 or BIP 86, with its checksum (BIP 380): of one public key of this network,
/// and nothing else, since a wallet is built on it for each start.
fn check_descriptor(text: &str, keychain: u32, network: Network) -> Result<(), String> {
    if text.len() > MAX_DESCRIPTOR {
        return Err(format!("has more than {MAX_DESCRIPTOR} bytes"));
    }
    if !text.contains('#') {
        return Err("has no checksum".into());
    }
    let descriptor = Descriptor::<DescriptorPublicKey>::from_str(text)
        .map_err(|_| "cannot be read".to_owned())?;
    let key = match &descriptor {
        Descriptor::Wpkh(wpkh) => Some(wpkh.as_inner()),
        Descriptor::Tr(tr) => Some(tr.internal_key()).filter(|_| tr.tap_tree().is_none()),
        _ => None,
    };
    let Some(DescriptorPublicKey::XPub(key)) = key else {
        return Err("is not wpkh or tr of one account key".into());
    };
    if key.xkey.network != NetworkKind::from(network) {
        return Err(format!("is not one of {network}"));
    }
    let path = DerivationPath::from(vec![ChildNumber::Normal { index: keychain }]);
    if key.derivation_path != path || key.wildcard != Wildcard::Unhardened {
        return Err(format!("is not of the path {keychain}/* of its account"));
    }
    Ok(())
}

/// A challenge that takes a node's key to answer: the host dials the node, as a peer would (BOLT 8), and asks for the secret of its Act One.
pub(crate) struct Challenge {
    act: ActOne,
    expected: SharedSecret,
}

impl Challenge {
    /// # Errors
    /// The system gives no randomness, or `node_id` is no point.
    pub fn new(node_id: &[u8]) -> Result<Challenge, ChallengeError> {
        let node_id = PublicKey::from_slice(node_id)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        // One in 2^128 is no key.
        let secret = SecretKey::from_slice(&random)?;
        Ok(Challenge {
            act: ActOne::new(&node_id, &secret),
            expected: SharedSecret::new(&node_id, &secret),
        })
    }

    /// The operation that the phone is asked for.
    pub fn batch(&self) -> SignerBatch {
        let ecdh = Ecdh {
            act: self.act.as_bytes().to_vec(),
            dialed_node_id: Vec::new(),
        };
        SignerBatch {
            ops: vec![SignerOp {
                channel_keys_id: Vec::new(),
                op: Some(Op::Ecdh(ecdh)),
            }],
        }
    }

    /// Whether this reply answers it.
    pub fn is_met_by(&self, reply: &SignerReply) -> bool {
        let expected = Answer::SharedSecret(self.expected.secret_bytes().to_vec());
        matches!(&reply.answers[..], [only] if only.answer.as_ref() == Some(&expected))
    }
}

/// Why there is no [`Challenge`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    #[error("the host has no randomness ({0}): tell its operator")]
    Randomness(#[from] getrandom::Error),
    #[error("no key can be made of it ({0}): try again")]
    Key(#[from] bitcoin::secp256k1::Error),
}

/// Whether both have the same keys. The wallet's birthday is no key.
pub(crate) fn same_keys(a: &Registration, b: &Registration) -> bool {
    let keys = |r: &Registration| Registration {
        birthday_height: 0,
        birthday_unix_s: 0,
        ..r.clone()
    };
    keys(a) == keys(b)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::bip32::{DerivationPath, Xpriv, Xpub};
    use bitcoin::secp256k1::Secp256k1;

    use super::*;

    /// A registration such as a phone with this seed makes.
    pub(crate) fn registration(seed: u8) -> Registration {
        let secp = Secp256k1::new();
        let root = Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap();
        let account: DerivationPath = "84'/1'/0'".parse().unwrap();
        let xpub = Xpub::from_priv(&secp, &root.derive_priv(&secp, &account).unwrap());
        let descriptor = |keychain: u32| {
            let text = format!("wpkh({xpub}/{keychain}/*)");
            Descriptor::<DescriptorPublicKey>::from_str(&text)
                .unwrap()
                .to_string()
        };
        Registration {
            node_id: root.private_key.public_key(&secp).serialize().to_vec(),
            network: "regtest".into(),
            external_descriptor: descriptor(0),
            internal_descriptor: descriptor(1),
            inbound_payment_key: vec![seed; 32],
            peer_storage_key: vec![seed; 32],
            receive_auth_key: vec![seed; 32],
            birthday_height: 0,
            birthday_unix_s: 0,
        }
    }

    #[test]
    fn a_phones_registration_is_taken_for_its_node_id() {
        let good = registration(1);
        let node_id = check(&good, Network::Regtest).unwrap();
        assert_eq!(node_id.serialize().to_vec(), good.node_id);
    }

    #[test]
    fn each_fault_is_named() {
        let good = registration(1);
        let descriptor = good.external_descriptor.clone();
        let cases: Vec<(&str, Registration)> = vec![
            (
                "node id",
                Registration {
                    node_id: vec![5; 33],
                    ..good.clone()
                },
            ),
            (
                "node id",
                Registration {
                    node_id: vec![],
                    ..good.clone()
                },
            ),
            (
                "set up for signet",
                Registration {
                    network: "signet".into(),
                    ..good.clone()
                },
            ),
            (
                "inbound payment key",
                Registration {
                    inbound_payment_key: vec![1; 31],
                    ..good.clone()
                },
            ),
            (
                "peer storage key",
                Registration {
                    peer_storage_key: vec![1; 33],
                    ..good.clone()
                },
            ),
            (
                "receive auth key",
                Registration {
                    receive_auth_key: vec![],
                    ..good.clone()
                },
            ),
            (
                "cannot be read",
                Registration {
                    internal_descriptor: "wpkh(x)#y".into(),
                    ..good.clone()
                },
            ),
            (
                "no checksum",
                Registration {
                    internal_descriptor: descriptor.split('#').next().unwrap().into(),
                    ..good.clone()
                },
            ),
            (
                "path 1/*",
                Registration {
                    internal_descriptor: descriptor.clone(),
                    ..good.clone()
                },
            ),
            (
                "cannot be read",
                Registration {
                    external_descriptor: descriptor.replace("/0/*", "/2/*"),
                    ..good.clone()
                },
            ),
        ];
        let with = |text: &str| {
            let parsed = Descriptor::<DescriptorPublicKey>::from_str(text).unwrap();
            Registration {
                external_descriptor: parsed.to_string(),
                ..good.clone()
            }
        };
        let key = descriptor.split(['(', '/']).nth(1).unwrap();
        let long = Registration {
            external_descriptor: format!("wpkh({})", "a".repeat(MAX_DESCRIPTOR)),
            ..good.clone()
        };
        let shapes = [
            ("more than 256 bytes", long),
            ("path 0/*", with(&format!("wpkh({key}/0/7/*)"))),
            ("path 0/*", with(&format!("wpkh({key}/0)"))),
            ("of one account key", with(&format!("sh(wpkh({key}/0/*))"))),
            ("of one account key", with(&format!("wsh(pk({key}/0/*))"))),
            (
                "of one account key",
                with(&format!("tr({key}/0/*,pk({key}/1/*))")),
            ),
        ];
        for (expected, registration) in cases.into_iter().chain(shapes) {
            let error = check(&registration, Network::Regtest)
                .expect_err(expected)
                .to_string();
            assert!(
                error.contains(expected),
                "{error:?} should hold {expected:?}"
            );
        }
    }

    #[test]
    fn descriptors_of_another_network_are_refused() {
        let mainnet = Registration {
            network: "bitcoin".into(),
            ..registration(1)
        };
        let error = check(&mainnet, Network::Bitcoin).unwrap_err().to_string();
        assert!(error.contains("is not one of bitcoin"), "{error}");
    }

    #[test]
    fn secret_keys_are_refused() {
        let root = Xpriv::new_master(Network::Regtest, &[1; 32]).unwrap();
        let secret = Registration {
            external_descriptor: format!("wpkh({root}/0/*)#00000000"),
            ..registration(1)
        };
        assert!(check(&secret, Network::Regtest).is_err());
    }

    #[test]
    fn the_birthday_is_no_key() {
        let (a, mut b) = (registration(1), registration(1));
        b.birthday_height = 100;
        b.birthday_unix_s = 1_700_000_000;
        assert!(same_keys(&a, &b));
        assert!(!same_keys(&a, &registration(2)));
    }
}
