//! Bad input is refused by its code, and nothing is sent to the host.

use bitcoin::secp256k1::PublicKey as NodeId;
use lightning_invoice::Currency;
use longhand_proto::Code;

use super::*;
use crate::command::{CloseHow, OwnerCommand};
use crate::input::*;

fn check(text: &str, amount_msat: Option<u64>) -> Result<CheckedPayment, InputError> {
    let own = NodeId::from_slice(&[2; 33]).unwrap();
    check_payment(
        text,
        amount_msat,
        None,
        Network::Regtest,
        &own,
        now_unix_s(),
    )
}

fn refused(text: &str, amount_msat: Option<u64>) -> Code {
    check(text, amount_msat).unwrap_err().code()
}

#[test]
fn an_invoice_with_an_amount_is_paid_as_it_stands() {
    let spec = InvoiceSpec::default();
    let payment = check(&spec.text(), None).unwrap();
    assert_eq!(payment.payment_hash, spec.hash());
    assert_eq!(
        (payment.amount_msat, payment.amount_is_open),
        (5_000_000, false)
    );
    assert_eq!(payment.max_fee_msat, 50_000 + 50_000);
    assert_eq!(check(&spec.text(), Some(5_000_000)).unwrap(), payment);
}

#[test]
fn an_invoice_may_come_with_its_scheme_and_in_capitals() {
    let text = InvoiceSpec::default().text();
    let plain = check(&text, None).unwrap();
    assert_eq!(check(&format!(" LIGHTNING:{text}\n"), None).unwrap(), plain);
    let capitals = check(&text.to_uppercase(), None).unwrap();
    assert_eq!(capitals.payment_hash, plain.payment_hash);
}

#[test]
fn an_open_amount_is_the_owners() {
    let spec = InvoiceSpec {
        amount_msat: None,
        ..Default::default()
    };
    let payment = check(&spec.text(), Some(7)).unwrap();
    assert_eq!((payment.amount_msat, payment.amount_is_open), (7, true));
    assert_eq!(refused(&spec.text(), None), Code::AmountMissing);
    assert_eq!(refused(&spec.text(), Some(0)), Code::AmountZero);
    assert_eq!(refused(&spec.text(), Some(u64::MAX)), Code::AmountTooLarge);
}

#[test]
fn another_amount_than_the_invoices_is_refused() {
    let text = InvoiceSpec::default().text();
    assert_eq!(refused(&text, Some(5_000_001)), Code::AmountDiffers);
    assert_eq!(refused(&text, Some(0)), Code::AmountZero);
    let zero = InvoiceSpec {
        amount_msat: Some(0),
        ..Default::default()
    };
    assert_eq!(refused(&zero.text(), None), Code::AmountZero);
}

#[test]
fn what_is_no_invoice_is_refused() {
    let text = InvoiceSpec::default().text();
    let mut damaged = text.clone();
    damaged.replace_range(60..61, if &text[60..61] == "q" { "p" } else { "q" });
    for bad in [
        "",
        "lnbcrt1",
        "lightning:",
        "bc1q",
        "\u{2028}",
        &damaged,
        &text[..text.len() - 1],
    ] {
        assert_eq!(refused(bad, None), Code::InvoiceMalformed, "{bad}");
    }
}

#[test]
fn invoices_of_other_networks_are_refused() {
    for currency in [
        Currency::Bitcoin,
        Currency::BitcoinTestnet,
        Currency::Signet,
    ] {
        let spec = InvoiceSpec {
            currency,
            ..Default::default()
        };
        assert_eq!(refused(&spec.text(), None), Code::WrongNetwork);
    }
}

#[test]
fn an_invoice_can_be_paid_until_it_expires() {
    let almost = InvoiceSpec {
        age_s: 3_500,
        ..Default::default()
    };
    assert!(check(&almost.text(), None).is_ok());
    let expired = InvoiceSpec {
        age_s: 3_600,
        ..Default::default()
    };
    assert_eq!(refused(&expired.text(), None), Code::InvoiceExpired);
}

#[test]
fn an_expired_invoice_is_refused_with_its_expiry_and_the_phones_time() {
    let expired = InputError::InvoiceExpired {
        expires_unix_s: 1_795_888_800,
        now_unix_s: 1_795_899_600,
    };
    let line = expired.to_string();
    assert!(
        line.contains("expired at 2026-11-28 18:00:00 UTC"),
        "{line}"
    );
    assert!(
        line.contains("this phone's clock shows 2026-11-28 21:00:00 UTC"),
        "{line}"
    );
}

#[test]
fn an_invoice_of_every_network_can_be_paid_there_and_nowhere_else() {
    use Network::{Bitcoin, Regtest, Signet, Testnet, Testnet4};
    let networks = [Bitcoin, Testnet, Testnet4, Signet, Regtest];
    for of in networks {
        let spec = InvoiceSpec {
            currency: Currency::from(of),
            ..Default::default()
        };
        let text = spec.text();
        for on in networks {
            let own = NodeId::from_slice(&[2; 33]).unwrap();
            let checked = check_payment(&text, None, None, on, &own, now_unix_s());
            let fits = Currency::from(of) == Currency::from(on);
            assert_eq!(checked.is_ok(), fits, "an invoice of {of} on {on}");
        }
    }
}

#[test]
fn the_amount_of_a_uri_is_sent_and_no_other() {
    use OnchainAmount::{All, Sat};
    let address = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    let uri = format!("bitcoin:{address}?amount=0.001");
    assert_eq!(onchain_amount(&uri, None), Ok(Sat(100_000)));
    assert_eq!(onchain_amount(&uri, Some(All)), Ok(All));
    assert_eq!(onchain_amount(address, Some(Sat(7))), Ok(Sat(7)));
    let missing = onchain_amount(address, None).unwrap_err();
    assert_eq!(missing.code(), Code::AmountMissing);

    let check = |amount| check_onchain(&uri, amount, Network::Regtest).map_err(|it| it.code());
    assert!(check(Sat(100_000)).is_ok());
    assert_eq!(check(Sat(100_001)), Err(Code::AmountDiffers));
    assert_eq!(check(All), Err(Code::AmountDiffers));
}

#[test]
fn a_uri_whose_address_and_invoice_ask_for_different_amounts_is_paid_by_neither() {
    let address = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    let spec = InvoiceSpec {
        amount_msat: Some(1_000_000),
        ..InvoiceSpec::default()
    };
    let invoice = spec.text();
    let own = NodeId::from_slice(&[2; 33]).unwrap();
    let codes = |sat: u64| {
        let uri = format!("bitcoin:{address}?amount=0.0000{sat}&lightning={invoice}");
        let amount = onchain_amount(&uri, None).unwrap();
        let sent = check_onchain(&uri, amount, Network::Regtest);
        let paid = check_payment(&uri, None, None, Network::Regtest, &own, now_unix_s());
        (
            sent.map_err(|it| it.code()).err(),
            paid.map_err(|it| it.code()).err(),
        )
    };
    assert_eq!(codes(1_000), (None, None));
    let differs = Some(Code::AmountDiffers);
    assert_eq!(codes(2_000), (differs, differs));
}

#[test]
fn a_uri_without_what_is_paid_to_is_refused() {
    let address = "bitcoin:bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    assert_eq!(refused(address, None), Code::UriWithoutInvoice);
    let invoice = format!("lightning:{}", InvoiceSpec::default().text());
    let sent = check_onchain(&invoice, OnchainAmount::All, Network::Regtest);
    assert_eq!(sent.unwrap_err().code(), Code::UriWithoutAddress);
}

#[test]
fn words_that_are_no_mnemonic_are_refused() {
    for words in ["", "zoo", &WORDS.replace("yellow", "zoo")] {
        let restored = Secrets::restore(Network::Regtest, words, Birthday::New);
        let refused = restored.map(drop).unwrap_err().report();
        assert_eq!(refused.code, Code::SeedInvalid, "{words}");
    }
}

#[test]
fn on_chain_amounts_and_addresses_are_checked() {
    let regtest = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let code = |address, amount| {
        check_onchain(address, amount, Network::Regtest).map_err(|error| error.code())
    };
    use OnchainAmount::{All, Sat};
    assert!(code(regtest, Sat(294)).is_ok());
    assert!(code(regtest, All).is_ok());
    assert_eq!(code(regtest, Sat(293)), Err(Code::AmountDust));
    assert_eq!(code(regtest, Sat(0)), Err(Code::AmountZero));
    assert_eq!(
        code(regtest, Sat(2_100_000_000_000_001)),
        Err(Code::AmountTooLarge)
    );
    assert_eq!(code(mainnet, All), Err(Code::WrongNetwork));
    assert_eq!(
        code("bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6y", All),
        Err(Code::AddressMalformed)
    );
    assert_eq!("all".parse(), Ok(All));
    assert_eq!("12".parse(), Ok(Sat(12)));
    assert!("-1".parse::<OnchainAmount>().is_err() && "1.5".parse::<OnchainAmount>().is_err());
}

#[test]
fn channels_and_invoices_of_no_use_are_refused() {
    assert_eq!(check_channel(0).unwrap_err().code(), Code::AmountZero);
    assert_eq!(
        check_channel(19_999).unwrap_err().code(),
        Code::ChannelTooSmall
    );
    assert_eq!(
        check_channel(u64::MAX).unwrap_err().code(),
        Code::AmountTooLarge
    );
    assert_eq!(check_channel(20_000), Ok(()));

    let invoice = |amount, description: &str, expiry| {
        check_invoice_request(amount, description, expiry).map_err(|error| error.code())
    };
    assert_eq!(invoice(None, "", 1), Ok(()));
    assert_eq!(invoice(Some(0), "", 1), Err(Code::AmountZero));
    assert_eq!(invoice(Some(u64::MAX), "", 1), Err(Code::AmountTooLarge));
    assert_eq!(invoice(None, "", 0), Err(Code::ExpiryZero));
    assert_eq!(invoice(None, &"x".repeat(639), 1), Ok(()));
    assert_eq!(
        invoice(None, &"x".repeat(640), 1),
        Err(Code::DescriptionTooLong)
    );
}

#[test]
fn peers_are_read_with_their_addresses() {
    let id = payee_id();
    let peer: PeerAddress = format!("{id}@[::1]:9735").parse().unwrap();
    assert_eq!((peer.node_id, peer.address.as_str()), (id, "[::1]:9735"));
    for bad in [
        "",
        "@",
        &id.to_string(),
        &format!("{id}@host"),
        &format!("{id}@:1"),
        "02@host:1",
    ] {
        assert_eq!(
            bad.parse::<PeerAddress>(),
            Err(InputError::PeerMalformed),
            "{bad}"
        );
    }
    assert_eq!(
        format!("{id}@host:0").parse::<PeerAddress>(),
        Err(InputError::PeerMalformed)
    );
}

#[test]
fn expiry_is_counted_from_the_invoices_own_time() {
    let payment = check(&InvoiceSpec::default().text(), None).unwrap();
    let now = now_unix_s();
    assert!((now + 3_590..=now + 3_600).contains(&payment.expires_unix_s));
}

#[tokio::test]
async fn nothing_is_sent_to_the_host_for_bad_input() {
    let (_dir, phone, host) = attached().await;
    let expired = InvoiceSpec {
        age_s: 4_000,
        ..Default::default()
    }
    .text();
    let open = InvoiceSpec {
        amount_msat: None,
        ..Default::default()
    }
    .text();
    let pay = |bolt11: &str| OwnerCommand::Pay {
        bolt11: bolt11.into(),
        amount_msat: None,
        max_fee_msat: None,
    };
    let send = |amount| OwnerCommand::SendOnchain {
        address: "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x".into(),
        amount,
        feerate_sat_per_kw: None,
    };
    let open_channel = |amount_sat| OwnerCommand::Open {
        amount_sat,
        to: None,
        announced: false,
        wait: false,
        feerate_sat_per_kw: None,
    };
    let open_at = |feerate| OwnerCommand::Open {
        amount_sat: 100_000,
        to: None,
        announced: false,
        wait: false,
        feerate_sat_per_kw: Some(feerate),
    };
    let send_at = |feerate| OwnerCommand::SendOnchain {
        address: "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x".into(),
        amount: OnchainAmount::Sat(10_000),
        feerate_sat_per_kw: Some(feerate),
    };
    let close = |channel_id: &str, how| OwnerCommand::Close {
        channel_id: channel_id.into(),
        how,
    };
    let wake = |url: &str, times| OwnerCommand::SetWakeUrls {
        urls: vec![url.to_owned(); times],
    };
    let to = |address: &str| CloseHow {
        address: Some(address.into()),
        ..CloseHow::default()
    };
    let bad = [
        (pay("no invoice"), Code::InvoiceMalformed),
        (pay(&expired), Code::InvoiceExpired),
        (pay(&open), Code::AmountMissing),
        (send(OnchainAmount::Sat(0)), Code::AmountZero),
        (send(OnchainAmount::Sat(1)), Code::AmountDust),
        (open_channel(0), Code::AmountZero),
        (open_channel(1), Code::ChannelTooSmall),
        (close("ff", CloseHow::default()), Code::ChannelIdMalformed),
        (open_at(1), Code::FeerateOutOfRange),
        (send_at(625_001), Code::FeerateOutOfRange),
        (
            close(
                &"ff".repeat(32),
                CloseHow {
                    force: true,
                    ..to("bcrt1q")
                },
            ),
            Code::ForcedClose,
        ),
        (
            close(
                &"ff".repeat(32),
                CloseHow {
                    feerate_sat_per_kw: Some(249),
                    ..CloseHow::default()
                },
            ),
            Code::FeerateOutOfRange,
        ),
        (
            close(&"ff".repeat(32), to("bcrt1q")),
            Code::AddressMalformed,
        ),
        (
            close(
                &"ff".repeat(32),
                to("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ),
            Code::WrongNetwork,
        ),
        (
            OwnerCommand::Payment {
                payment_hash: "ff".into(),
            },
            Code::PaymentHashMalformed,
        ),
        (
            OwnerCommand::Payments {
                limit: None,
                before: Some("ff".into()),
            },
            Code::CursorMalformed,
        ),
        (wake("nowhere", 1), Code::BadWakeUrl),
        (wake("ftp://push.example/", 1), Code::BadWakeUrl),
        (wake("https://push.example/\u{1b}[2J", 1), Code::BadWakeUrl),
        (wake("https://push.example/", 5), Code::TooManyWakeUrls),
        (
            wake(&format!("https://{}", "x".repeat(505)), 1),
            Code::WakeUrlTooLong,
        ),
    ];
    for (command, code) in bad {
        assert_eq!(code_of(phone.check(&command)), code);
        assert_eq!(code_of(phone.execute(command).await), code);
    }
    assert_eq!(host.asked(), []);
    let version = phone.look(|signer| signer.version()).await.unwrap();
    assert_eq!(version, 0, "nothing is on record");
}

/// The node's own minimum, so that the owner gets the error without a round trip, with nothing on record.
#[tokio::test]
async fn a_channel_below_the_nodes_minimum_is_refused_before_the_host_is_asked() {
    let (_dir, phone, host) = attached().await;
    let refused = phone.open(19_999, None, false, false, None).await;
    let refused = refused.unwrap_err().report();
    assert_eq!(refused.code, Code::ChannelTooSmall);
    assert!(
        refused.message.contains("at least 20000 sat"),
        "{refused:?}"
    );
    assert_eq!(host.asked(), []);
}

#[tokio::test]
async fn a_host_that_gives_no_reason_is_reported_all_the_same() {
    let host = scripted_host();
    host.script(|ask| match ask {
        Ask::GetBalance(_) => Some(Act::Reply(Reply::Error(proto::Error::default()))),
        Ask::ListChannels(_) => Some(Act::Refuse("".into())),
        _ => None,
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let refused = phone.balance().await.unwrap_err().report();
    assert_eq!(refused.code, Code::Unnamed);
    assert!(refused.message.contains("does not say why"), "{refused:?}");
    assert_eq!(code_of(phone.channels().await), Code::Unnamed);
}

#[tokio::test]
async fn what_the_host_says_steers_no_terminal() {
    // "Clear the screen", a forged line, and letters in another order.
    let steering = "no\u{1b}[2J\u{9b}2J\r\nall is well\u{202e}tas 5";
    let host = scripted_host();
    host.script(move |ask| match ask {
        Ask::GetBalance(_) => Some(Act::Reply(Reply::Error(proto::Error {
            code: steering.into(),
            message: steering.into(),
            action: proto::error::Action::GiveUp.into(),
            is_final: false,
        }))),
        Ask::ListPayments(_) => Some(Act::Reply(Reply::Payments(proto::Payments {
            payments: vec![proto::Payment {
                failure: steering.into(),
                ..InvoiceSpec::default().payment(proto::payment::State::Failed)
            }],
            next: Vec::new(),
        }))),
        Ask::ListChannels(_) => Some(Act::Refuse(steering.into())),
        _ => None,
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let by_the_link = phone.channels().await.unwrap_err().report();
    assert_eq!(by_the_link.code, "no [2J 2J  all is welltas 5");
    assert!(!by_the_link.message.contains('\u{202e}'), "it still steers");
    let refused = phone.balance().await.unwrap_err();
    let failure = phone.payments().await.unwrap().payments[0].failure.clone();
    for text in [refused.to_string(), refused.report().code, failure] {
        assert!(
            text.starts_with("no [2J 2J  all is welltas 5"),
            "still steers: {text:?}"
        );
    }
}
