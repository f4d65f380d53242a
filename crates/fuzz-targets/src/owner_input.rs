//! Input that an owner gets from others and passes on to the phone: invoices to pay, addresses to send to, peers to
//! connect to.
//!
//! The first byte selects the kind of the rest: an invoice as text, the bytes of one below a good checksum and a good
//! signature, an address, or a peer.

use bech32::{Bech32, Hrp};
use bitcoin::Network;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{Bolt11Invoice, SignedRawBolt11Invoice};
use longhand_phone::input::{
    InputError, OnchainAmount, PeerAddress, check_onchain, check_payment, default_max_fee_msat,
};

const NETWORK: Network = Network::Regtest;
const NOW_UNIX_S: u64 = 1_800_000_000;
/// The longest error, in bytes.
const LONGEST_LINE: usize = 400;
/// A compact signature and its recovery id.
const SIGNATURE: [u8; 65] = {
    let mut bytes = [1; 65];
    bytes[64] = 0;
    bytes
};

/// Tries one input.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => invoice(&text),
        1 => {
            if let Some(signed) = signed(rest) {
                invoice(&signed);
            }
        }
        2 => address(&text),
        _ => peer(&text),
    }
}

fn invoice(text: &str) {
    for amount_msat in [None, Some(1), Some(u64::MAX)] {
        let check = |text| check_payment(text, amount_msat, None, NETWORK, &own_id(), NOW_UNIX_S);
        let payment = match check(text) {
            Ok(payment) => payment,
            Err(error) => {
                is_one_line(&error);
                continue;
            }
        };
        let invoice: Bolt11Invoice = payment
            .bolt11
            .parse()
            .expect("a checked invoice can be read");
        assert_eq!(invoice.network(), NETWORK);
        assert_ne!(invoice.get_payee_pub_key(), own_id());
        assert_eq!(
            invoice.payment_hash().0,
            payment.payment_hash,
            "another payment"
        );
        let asked = invoice.amount_milli_satoshis();
        assert_eq!(Some(payment.amount_msat), asked.or(amount_msat));
        assert!(payment.amount_msat > 0 && payment.expires_unix_s > NOW_UNIX_S);
        assert_eq!(
            payment.max_fee_msat,
            default_max_fee_msat(payment.amount_msat)
        );
        assert_eq!(check(&payment.bolt11).as_ref(), Ok(&payment));
    }
}

/// An invoice of these bytes: its amount from the first two, its data from the rest, signed with a fixed key.
fn signed(data: &[u8]) -> Option<String> {
    let (amount, fields) = data.split_at_checked(2)?;
    let amount = match amount[0] % 4 {
        0 => String::new(),
        unit => format!("{}{}", amount[1], ["m", "u", "n"][usize::from(unit) - 1]),
    };
    let hrp = Hrp::parse(&format!("lnbcrt{amount}")).ok()?;
    // Eight of its digits are five bytes, so that the signature has its own.
    let fields = &fields[..fields.len() - fields.len() % 5];
    let unsigned = bech32::encode::<Bech32>(hrp, &[fields, &SIGNATURE].concat()).ok()?;
    let unsigned: SignedRawBolt11Invoice = unsigned.parse().ok()?;
    let (raw, _, _) = unsigned.into_parts();
    let key = SecretKey::from_slice(&[7; 32]).ok()?;
    let sign = |hash: &_| Ok::<_, ()>(Secp256k1::signing_only().sign_ecdsa_recoverable(hash, &key));
    raw.sign(sign).ok().map(|signed| signed.to_string())
}

fn address(text: &str) {
    for amount in [OnchainAmount::All, OnchainAmount::Sat(546)] {
        match check_onchain(text, amount, NETWORK) {
            Ok(address) => {
                let printed = address.to_string();
                assert_eq!(check_onchain(&printed, amount, NETWORK), Ok(address));
            }
            Err(error) => is_one_line(&error),
        }
    }
}

fn peer(text: &str) {
    match text.parse::<PeerAddress>() {
        Ok(peer) => {
            let printed = peer.to_string();
            assert!(!printed.contains(char::is_control), "{printed:?}");
            assert_eq!(printed.parse().as_ref(), Ok(&peer));
        }
        Err(error) => is_one_line(&error),
    }
}

fn is_one_line(error: &InputError) {
    let line = error.to_string();
    let is_plain = !line.is_empty() && !line.contains(char::is_control);
    assert!(is_plain && line.len() <= LONGEST_LINE, "{line:?}");
}

fn own_id() -> PublicKey {
    let key = SecretKey::from_slice(&[9; 32]).expect("a key");
    key.public_key(&Secp256k1::signing_only())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let hash = bitcoin::hashes::sha256::Hash::hash(&[1]);
    let key = SecretKey::from_slice(&[8; 32]).unwrap();
    let builder = || {
        lightning_invoice::InvoiceBuilder::new(lightning_invoice::Currency::Regtest)
            .description("coffee".into())
            .payment_hash(lightning::types::payment::PaymentHash(hash.to_byte_array()))
            .payment_secret(lightning_invoice::PaymentSecret([3; 32]))
            .duration_since_epoch(std::time::Duration::from_secs(NOW_UNIX_S))
            .min_final_cltv_expiry_delta(144)
    };
    let sign = |hash: &_| Secp256k1::new().sign_ecdsa_recoverable(hash, &key);
    let open = builder().build_signed(sign).unwrap().to_string();
    let asks = builder().amount_milli_satoshis(50_000);
    let asks = asks.build_signed(sign).unwrap().to_string();
    let upper = format!("LIGHTNING:{}", asks.to_uppercase());
    // The data of an invoice: digits between the last 1 and the signature, five bytes for each eight.
    let fields: SignedRawBolt11Invoice = open.parse().unwrap();
    let inside = bech32::decode(&fields.to_string()).unwrap().1;
    let inside = [&[1, 25], &inside[..inside.len() - 65]].concat();
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let peer = format!("{}@peer.example:9735", own_id());
    let onion = format!("{}@[::1]:1", own_id());
    [
        (0, open.as_bytes()),
        (0, asks.as_bytes()),
        (0, upper.as_bytes()),
        (1, &inside),
        (2, address.as_bytes()),
        (3, peer.as_bytes()),
        (3, onion.as_bytes()),
    ]
    .map(|(kind, rest)| [&[kind], rest].concat())
    .to_vec()
}
