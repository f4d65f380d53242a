//! Invoices are signed only as asked; a preimage leaves only when its payment cannot be taken back.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning_invoice::Currency;
use longhand_lying_host::invoice::{Draft, EXPIRY_S, ask_for, finish};
use longhand_lying_host::scene::*;
use longhand_proto::command::UnsignedInvoice;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{ChannelIntent, InvoiceRequest, Rule};

/// A signed invoice over `amount_msat`, as its payment hash.
fn invoiced(phone: &mut Phone, amount_msat: u64) -> [u8; 32] {
    let asked = ask_for(phone, amount_msat);
    finish(phone, &Draft::of(&asked), &asked).unwrap();
    asked.payment_hash
}

fn preimage_of(payment_hash: [u8; 32]) -> Op {
    claim(payment_hash, vec![])
}

fn claim(payment_hash: [u8; 32], htlcs: Vec<ClaimableHtlc>) -> Op {
    Op::GetPreimage(GetPreimage {
        payment_hash: payment_hash.to_vec(),
        htlcs,
    })
}

fn part(amount_msat: u64) -> ClaimableHtlc {
    ClaimableHtlc {
        channel_keys_id: KEYS_ID.to_vec(),
        amount_msat,
        cltv_expiry: 500,
    }
}

#[test]
fn an_invoice_as_asked_is_signed_by_the_node() {
    let mut phone = Phone::new();
    for amount_msat in [0, 1_000, 123_456_789] {
        let asked = ask_for(&mut phone, amount_msat);
        let invoice = finish(&mut phone, &Draft::of(&asked), &asked).unwrap();
        assert_eq!(
            invoice.recover_payee_pub_key(),
            phone.signer.keys().node_id()
        );
        assert_eq!(
            invoice.amount_milli_satoshis(),
            (amount_msat > 0).then_some(amount_msat)
        );
        assert!(invoice.check_signature().is_ok());
    }
    let payment = phone
        .signer
        .payments()
        .find(|payment| payment.amount_msat == 1_000)
        .unwrap();
    assert_eq!(payment.expires_unix_s, NOW + u64::from(EXPIRY_S));
    assert!(payment.bolt11.starts_with("lnbcrt"));
}

#[test]
fn an_invoice_that_is_not_as_asked_is_refused() {
    let mut phone = Phone::new();
    let asked = ask_for(&mut phone, 50_000);
    let good = Draft::of(&asked);
    let other_key = Some(SecretKey::from_slice(&[1; 32]).unwrap());
    let wrong = [
        Draft {
            currency: Currency::Bitcoin,
            ..good.clone()
        },
        Draft {
            payment_hash: [9; 32],
            ..good.clone()
        },
        Draft {
            amount_msat: 49_999,
            ..good.clone()
        },
        Draft {
            amount_msat: 0,
            ..good.clone()
        },
        Draft {
            description: "tea".into(),
            ..good.clone()
        },
        Draft {
            expiry_s: EXPIRY_S + 1,
            ..good.clone()
        },
        Draft {
            date: NOW + 3601,
            ..good.clone()
        },
        Draft {
            payee: other_key,
            ..good.clone()
        },
        Draft {
            fallback: true,
            ..good.clone()
        },
    ];
    for draft in wrong {
        assert_eq!(
            finish(&mut phone, &draft, &asked).unwrap_err().rule,
            Rule::InvoiceMismatch
        );
    }
    let unreadable = UnsignedInvoice {
        hrp: "lnbcrt1m".into(),
        data: vec![32; 10],
    };
    let refused = phone
        .signer
        .finish_invoice(&unreadable, &asked, NOW)
        .unwrap_err();
    assert_eq!(refused.rule, Rule::InvoiceMismatch);
    finish(&mut phone, &good, &asked).unwrap();
}

#[test]
fn a_payment_has_one_preimage_and_one_invoice() {
    let mut phone = Phone::new();
    let asked = ask_for(&mut phone, 50_000);
    assert_eq!(
        phone
            .signer
            .new_payment(1, [50_000u64 as u8; 32], NOW)
            .unwrap_err()
            .rule,
        Rule::Duplicate
    );
    finish(&mut phone, &Draft::of(&asked), &asked).unwrap();
    assert_eq!(
        finish(&mut phone, &Draft::of(&asked), &asked)
            .unwrap_err()
            .rule,
        Rule::Duplicate
    );
    let other = InvoiceRequest {
        payment_hash: [1; 32],
        ..asked
    };
    assert_eq!(
        finish(&mut phone, &Draft::of(&other), &other)
            .unwrap_err()
            .rule,
        Rule::PreimageUnknown
    );
}

#[test]
fn a_preimage_leaves_only_when_the_payment_cannot_be_taken_back() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 50_000_000);
    let paid = [Htlc::incoming(hash, 50_000_000)];
    let waits = |phone: &mut Phone| {
        let refusal = phone.ask(preimage_of(hash)).unwrap_err();
        assert_eq!(
            (rule(&refusal), refusal.retry),
            (Rule::PreimageNotCommitted, true)
        );
        phone.restart();
    };
    waits(&mut phone);
    // In the owner's commitment: the peer could still broadcast its own older one, without it.
    phone
        .ask(validate(&channel.holder(1, 400_000, &paid)))
        .unwrap();
    waits(&mut phone);
    phone.ask(release(0)).unwrap();
    waits(&mut phone);
    // In the peer's too: the older one is still good.
    phone.ask(sign(&channel.theirs(1, 400_000, &paid))).unwrap();
    waits(&mut phone);
    phone.ask(channel.revocation(0)).unwrap();
    let Ok(Answer::Preimage(preimage)) = phone.ask(preimage_of(hash)) else {
        panic!()
    };
    assert_eq!(sha256::Hash::hash(&preimage).to_byte_array(), hash);
}

#[test]
fn a_preimage_that_has_left_is_given_again() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 50_000_000, 50_000_000);
    let first = phone.ask(preimage_of(hash)).unwrap();
    let written = phone.disk.len();
    phone.restart();
    assert_eq!(phone.ask(preimage_of(hash)).unwrap(), first);
    assert_eq!(phone.disk.len(), written);
    let payment = phone.signer.payments().next().unwrap();
    assert_eq!(payment.released.unwrap().received_msat, 50_000_000);
}

#[test]
fn an_invoice_has_nothing_of_the_hosts_choice_but_a_hint_from_a_peer() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let asked = ask_for(&mut phone, 1_000);
    let stranger = SecretKey::from_slice(&[1; 32]).unwrap();
    let stranger = stranger.public_key(&Secp256k1::new());
    let good = Draft {
        hint: Some(channel.peer_node_id()),
        ..Draft::of(&asked)
    };
    let strange = Draft {
        hint: Some(stranger),
        ..good.clone()
    };
    let refused = finish(&mut phone, &strange, &asked).unwrap_err();
    assert_eq!(refused.rule, Rule::InvoiceHint);
    for draft in [
        Draft {
            metadata: Some(vec![1]),
            ..good.clone()
        },
        Draft {
            final_delta_blocks: 17,
            ..good.clone()
        },
        Draft {
            final_delta_blocks: 145,
            ..good.clone()
        },
    ] {
        let refused = finish(&mut phone, &draft, &asked).unwrap_err();
        assert_eq!(refused.rule, Rule::InvoiceMismatch);
    }
    finish(&mut phone, &good, &asked).unwrap();
}

#[test]
fn a_rule_that_warns_lets_an_invoice_pass_and_is_counted() {
    let mut phone = Phone::new();
    phone.limit("invoice-hint", "warn");
    let asked = ask_for(&mut phone, 1_000);
    let stranger = SecretKey::from_slice(&[1; 32]).unwrap();
    let strange = Draft {
        hint: Some(stranger.public_key(&Secp256k1::new())),
        ..Draft::of(&asked)
    };
    let secret = phone.signer.payment_secret(&asked).unwrap();
    let signed = phone
        .signer
        .finish_invoice(&strange.unsigned(secret), &asked, NOW)
        .unwrap();
    let warned: Vec<Rule> = signed.warnings.iter().map(|it| it.rule).collect();
    assert_eq!(warned, [Rule::InvoiceHint]);
    assert_eq!(phone.signer.refusals().of(Rule::InvoiceHint), 1);
}

/// An invoice over `asked_msat`, and an HTLC of `paid_msat` irrevocably committed for it.
fn received(phone: &mut Phone, asked_msat: u64, paid_msat: u64) -> [u8; 32] {
    let channel = Channel::open(phone);
    let hash = invoiced(phone, asked_msat);
    commit(
        phone,
        &channel,
        &[Htlc::incoming(hash, paid_msat)],
        &[Htlc::incoming(hash, paid_msat)],
    );
    hash
}

fn commit(phone: &mut Phone, channel: &Channel, ours: &[Htlc], theirs: &[Htlc]) {
    phone
        .ask(validate(&channel.holder(1, 400_000, ours)))
        .unwrap();
    phone.ask(release(0)).unwrap();
    phone
        .ask(sign(&channel.theirs(1, 400_000, theirs)))
        .unwrap();
    phone.ask(channel.revocation(0)).unwrap();
}

#[test]
fn too_little_is_not_enough() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 50_000_000, 49_453_999);
    assert_eq!(phone.refused(preimage_of(hash)), Rule::PreimageUnderpaid);
    // The host's claim of dust does not count for more than 546 sat either.
    for said in [
        vec![part(50_000_000)],
        vec![part(545_999)],
        vec![part(545_999), part(545_999)],
    ] {
        assert_eq!(phone.refused(claim(hash, said)), Rule::PreimageUnderpaid);
    }
}

#[test]
fn an_invoice_for_any_amount_takes_any_that_stands_in_a_commitment() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 0, 20_000_000);
    phone.ask(preimage_of(hash)).unwrap();
}

/// Whether the refusal `by` this rule is for now only.
fn waits(phone: &mut Phone, op: Op, by: Rule) -> bool {
    let refusal = phone.ask(op).unwrap_err();
    assert_eq!(rule(&refusal), by);
    refusal.retry
}

/// The HTLC hung until its deadline, though nothing could change.
#[test]
fn dust_for_an_invoice_for_any_amount_is_refused_for_good() {
    let mut phone = Phone::new();
    Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 0);
    for dust in [vec![part(1_000)], vec![part(545_999), part(545_999)]] {
        let refused = claim(hash, dust);
        assert!(!waits(&mut phone, refused, Rule::PreimageNotCommitted));
    }
}

#[test]
fn more_dust_than_counts_is_refused_for_good() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 3_000_000, 2_400_000);
    let parts = claim(hash, vec![part(2_400_000), part(300_000), part(300_000)]);
    assert!(!waits(&mut phone, parts, Rule::PreimageUnderpaid));
}

/// The host may list it before the phone has seen it.
#[test]
fn an_htlc_that_is_no_dust_is_waited_for_also_when_there_is_dust_beside_it() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 0);
    let parts = || claim(hash, vec![part(1_000), part(20_000_000)]);
    assert!(waits(&mut phone, parts(), Rule::PreimageNotCommitted));
    let larger = [Htlc::incoming(hash, 20_000_000)];
    commit(&mut phone, &channel, &larger, &larger);
    phone.ask(parts()).unwrap();
}

/// Its commitments have a dust limit of 354 sat.
#[test]
fn a_small_htlc_that_only_waits_for_the_peers_revocation_is_waited_for() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 0);
    let paid = [Htlc::incoming(hash, 400_000)];
    phone
        .ask(validate(&channel.holder(1, 400_000, &paid)))
        .unwrap();
    phone.ask(release(0)).unwrap();
    phone.ask(sign(&channel.theirs(1, 400_000, &paid))).unwrap();
    let asked = || claim(hash, vec![part(400_000)]);
    assert!(waits(&mut phone, asked(), Rule::PreimageNotCommitted));
    phone.ask(channel.revocation(0)).unwrap();
    phone.ask(asked()).unwrap();
}

/// One side's dust limit is 546 sat, so the HTLC is never in both commitments.
#[test]
fn a_small_htlc_that_stands_on_one_side_only_is_refused_for_good() {
    for on_the_owners_side in [true, false] {
        let mut phone = Phone::new();
        let channel = Channel::open(&mut phone);
        let hash = invoiced(&mut phone, 0);
        let stands = [Htlc::incoming(hash, 400_000)];
        let (ours, theirs): (&[Htlc], &[Htlc]) = match on_the_owners_side {
            true => (&stands, &[]),
            false => (&[], &stands),
        };
        commit(&mut phone, &channel, ours, theirs);
        let asked = claim(hash, vec![part(400_000)]);
        assert!(!waits(&mut phone, asked, Rule::PreimageNotCommitted));
    }
}

#[test]
fn parts_add_up() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 50_000_000);
    let parts = [
        Htlc::incoming(hash, 30_000_000),
        Htlc::incoming(hash, 20_000_000),
    ];
    commit(&mut phone, &channel, &parts, &parts);
    phone.ask(preimage_of(hash)).unwrap();
}

#[test]
fn only_the_same_htlc_on_both_sides_counts() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 50_000_000);
    let twice = [
        Htlc::incoming(hash, 25_000_000),
        Htlc::incoming(hash, 25_000_000),
    ];
    let other = [
        twice[0],
        Htlc {
            cltv_expiry: 499,
            ..twice[1]
        },
    ];
    commit(&mut phone, &channel, &twice, &other);
    assert_eq!(phone.refused(preimage_of(hash)), Rule::PreimageUnderpaid);
}

#[test]
fn an_outgoing_htlc_with_the_hash_is_no_payment() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 50_000_000);
    let outgoing = [Htlc::outgoing(hash, 50_000_000)];
    let ours = validate(&channel.holder(1, 350_000, &outgoing));
    assert_eq!(phone.refused(ours), Rule::PaymentUnasked);
    let theirs = sign(&channel.theirs(1, 350_000, &outgoing));
    assert_eq!(phone.refused(theirs), Rule::PaymentUnasked);
    assert_eq!(phone.refused(preimage_of(hash)), Rule::PreimageNotCommitted);
}

#[test]
fn an_htlc_whose_preimage_was_released_is_the_owners() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 50_000_000, 50_000_000);
    let channel = Channel::new(&mut phone);
    phone.ask(preimage_of(hash)).unwrap();
    let snapshot = phone.signer.snapshot();
    phone.disk = vec![snapshot.as_bytes().to_vec()];
    phone.restart();

    let theirs = |to_phone_sat| sign(&channel.theirs(2, to_phone_sat, &[]));
    assert_eq!(phone.refused(theirs(449_999)), Rule::Balance);
    phone.ask(theirs(450_000)).unwrap();
    phone.ask(channel.revocation(1)).unwrap();
    let ours = |to_phone_sat| validate(&channel.holder(2, to_phone_sat, &[]));
    assert_eq!(phone.refused(ours(449_999)), Rule::Balance);
    phone.ask(ours(450_000)).unwrap();
    phone.ask(release(1)).unwrap();
    // It is counted once.
    phone.ask(sign(&channel.theirs(3, 450_000, &[]))).unwrap();
}

/// An invoice over `amount_msat` that can be paid for `expiry_s`, by a host whose clock says `date` while the phone's says
/// `NOW`.
fn invoiced_by_a_host_at(
    phone: &mut Phone,
    date: u64,
    amount_msat: u64,
    expiry_s: u32,
) -> [u8; 32] {
    let asked = InvoiceRequest {
        expiry_s,
        ..ask_for(phone, amount_msat)
    };
    let draft = Draft {
        date,
        ..Draft::of(&asked)
    };
    finish(phone, &draft, &asked).unwrap();
    asked.payment_hash
}

#[test]
fn an_htlc_that_comes_after_the_expiry_does_not_get_the_preimage() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 50_000_000);
    let paid = [Htlc::incoming(hash, 50_000_000)];
    phone.now_unix_s = NOW + u64::from(EXPIRY_S) + 1;
    commit(&mut phone, &channel, &paid, &paid);
    let refusal = phone.ask(preimage_of(hash)).unwrap_err();
    assert_eq!(
        (rule(&refusal), refusal.retry),
        (Rule::PreimageExpired, false)
    );
    let clock = longhand_proto::utc(phone.now_unix_s);
    assert!(refusal.message.contains(&clock), "{}", refusal.message);
}

#[test]
fn an_invoice_of_a_host_whose_clock_is_hours_off_is_refused_with_both_times() {
    let mut phone = Phone::new();
    let asked = ask_for(&mut phone, 50_000);
    let draft = Draft {
        date: NOW + 7_200,
        ..Draft::of(&asked)
    };
    let refused = finish(&mut phone, &draft, &asked).unwrap_err().to_string();
    for time in [NOW, NOW + 7_200] {
        assert!(refused.contains(&longhand_proto::utc(time)), "{refused}");
    }
}

#[test]
fn an_invoice_of_a_host_whose_clock_is_an_hour_off_is_signed_and_with_a_second_more_it_is_not() {
    for (off, is_signed) in [(3_600, true), (3_601, false)] {
        for date in [NOW - off, NOW + off] {
            let mut phone = Phone::new();
            let asked = ask_for(&mut phone, 50_000);
            let draft = Draft {
                date,
                ..Draft::of(&asked)
            };
            let signed = finish(&mut phone, &draft, &asked);
            assert_eq!(signed.is_ok(), is_signed, "{date}: {signed:?}");
        }
    }
}

/// The host's clock is an hour ahead, or an hour behind: by that one an invoice of two hours has one hour left.
#[test]
fn an_invoice_is_paid_though_the_clocks_are_an_hour_apart() {
    for date in [NOW - 3_600, NOW + 3_600] {
        let mut phone = Phone::new();
        let channel = Channel::open(&mut phone);
        let hash = invoiced_by_a_host_at(&mut phone, date, 50_000_000, 7_200);
        phone.now_unix_s = NOW + 3_599;
        let paid = [Htlc::incoming(hash, 50_000_000)];
        commit(&mut phone, &channel, &paid, &paid);
        phone.ask(preimage_of(hash)).unwrap();
    }
}

/// By the host's clock, which is ten minutes behind, the invoice of five minutes had expired when the phone signed it.
#[test]
fn a_phone_whose_clock_is_ahead_is_paid_as_long_as_its_invoice_lasts() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced_by_a_host_at(&mut phone, NOW - 600, 50_000_000, 300);
    phone.restart();
    phone.now_unix_s = NOW + 300;
    let paid = [Htlc::incoming(hash, 50_000_000)];
    commit(&mut phone, &channel, &paid, &paid);
    phone.ask(preimage_of(hash)).unwrap();
}

#[test]
fn a_phone_whose_clock_is_ahead_is_not_paid_after_its_invoice() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced_by_a_host_at(&mut phone, NOW - 600, 50_000_000, 300);
    phone.now_unix_s = NOW + 301;
    let paid = [Htlc::incoming(hash, 50_000_000)];
    commit(&mut phone, &channel, &paid, &paid);
    assert_eq!(phone.refused(preimage_of(hash)), Rule::PreimageExpired);
}

#[test]
fn a_phone_whose_clock_is_behind_is_paid_as_long_as_the_invoice_says() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced_by_a_host_at(&mut phone, NOW + 600, 50_000_000, 300);
    phone.now_unix_s = NOW + 900;
    let paid = [Htlc::incoming(hash, 50_000_000)];
    commit(&mut phone, &channel, &paid, &paid);
    phone.ask(preimage_of(hash)).unwrap();
}

/// The link dropped before the phone was asked for the preimage. A larger HTLC has its date in the ledger; one that stands in
/// no commitment has none, and was refused for good.
#[test]
fn a_payment_that_came_in_time_is_not_refused_because_the_phone_was_away() {
    for amount_msat in [50_000_000, 400_000] {
        let mut phone = Phone::new();
        let channel = Channel::open(&mut phone);
        let hash = invoiced(&mut phone, amount_msat);
        let stands: &[Htlc] = match amount_msat {
            400_000 => &[],
            _ => &[Htlc::incoming(hash, amount_msat)],
        };
        commit(&mut phone, &channel, stands, stands);
        phone.restart();
        phone.now_unix_s = NOW + u64::from(EXPIRY_S) + 1;
        phone.ask(claim(hash, vec![part(amount_msat)])).unwrap();
    }
}

/// An HTLC in a commitment has a date, however small it is.
#[test]
fn a_small_htlc_that_is_seen_to_come_after_the_expiry_does_not_get_the_preimage() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 400_000);
    phone.now_unix_s = NOW + u64::from(EXPIRY_S) + 1;
    let paid = [Htlc::incoming(hash, 400_000)];
    commit(&mut phone, &channel, &paid, &paid);
    let asked = claim(hash, vec![part(400_000)]);
    assert_eq!(phone.refused(asked), Rule::PreimageExpired);
}

#[test]
fn a_preimage_without_a_signed_invoice_stays() {
    let mut phone = Phone::new();
    let asked = ask_for(&mut phone, 1_000);
    assert_eq!(
        phone.refused(preimage_of(asked.payment_hash)),
        Rule::PreimageUnknown
    );
    assert_eq!(phone.refused(preimage_of([4; 32])), Rule::PreimageUnknown);
}

#[test]
fn dust_counts_in_channels_that_are_open() {
    let mut phone = Phone::new();
    let hash = invoiced(&mut phone, 400_000);
    assert_eq!(
        phone.refused(claim(hash, vec![part(400_000)])),
        Rule::PreimageNotCommitted,
        "no channel yet"
    );
    Channel::open(&mut phone);
    assert_eq!(
        phone.refused(claim(hash, vec![part(399_999)])),
        Rule::PreimageNotCommitted
    );
    phone
        .ask(claim(hash, vec![part(200_000), part(200_000)]))
        .unwrap();
}

/// The wallet of its payer splits as it likes: 3,000 sat came as 2,700 and 300, and hung until their deadline.
#[test]
fn a_part_that_is_dust_counts_for_an_invoice_of_any_size() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 3_000_000, 2_700_000);
    phone
        .ask(claim(hash, vec![part(2_700_000), part(300_000)]))
        .unwrap();
    assert_eq!(received_msat(&phone, hash), 3_000_000);
    audit(&phone, &[(hash, 3_000_000)]);
}

/// The amount of an invoice that a dishonest host can keep.
#[test]
fn no_more_than_546_sat_of_an_invoice_rest_on_the_hosts_word() {
    let dust = || vec![part(500_000), part(500_000)];
    let mut phone = Phone::new();
    Channel::open(&mut phone);
    let more = invoiced(&mut phone, 546_001);
    assert_eq!(
        phone.refused(claim(more, dust())),
        Rule::PreimageNotCommitted
    );
    let as_much = invoiced(&mut phone, 546_000);
    phone.ask(claim(as_much, dust())).unwrap();
    assert_eq!(received_msat(&phone, as_much), 546_000);
    audit(&phone, &[(more, 546_001), (as_much, 546_000)]);
}

/// A payment of which all may be dust has no date at the phone.
#[test]
fn the_largest_payment_of_dust_is_not_refused_because_the_phone_was_away() {
    let mut phone = Phone::new();
    Channel::open(&mut phone);
    let hash = invoiced(&mut phone, 546_000);
    phone.now_unix_s = NOW + u64::from(EXPIRY_S) + 1;
    phone
        .ask(claim(hash, vec![part(273_000), part(273_000)]))
        .unwrap();
}

/// Checks the phone's answers so far by the audit; these invoices were signed.
#[cfg(feature = "audit")]
fn audit(phone: &Phone, invoices: &[([u8; 32], u64)]) {
    if let Err(violation) = audited(phone, invoices) {
        panic!("{violation}");
    }
}

#[cfg(not(feature = "audit"))]
fn audit(_: &Phone, _: &[([u8; 32], u64)]) {}

#[cfg(feature = "audit")]
fn audited(
    phone: &Phone,
    invoices: &[([u8; 32], u64)],
) -> Result<(), longhand_signer::audit::Violation> {
    let mut audit = longhand_signer::audit::Audit::default();
    for (hash, amount_msat) in invoices {
        audit.saw_invoice(*hash, *amount_msat)?;
    }
    phone
        .said
        .iter()
        .try_for_each(|(op, answer)| audit.saw(op, answer))
}

/// The phone refuses each of these.
#[cfg(feature = "audit")]
#[test]
fn the_audit_sees_more_rest_on_the_hosts_word_than_may() {
    let entropy = [7; 32];
    let hash = sha256::Hash::hash(&entropy).to_byte_array();
    for (asked_msat, committed_msat, said) in [
        (3_000_000, 2_453_999, vec![part(545_999), part(545_999)]),
        (500_000, 400_000, vec![part(400_000)]),
        (400_000, 0, vec![part(399_999)]),
        (0, 0, vec![part(400_000)]),
    ] {
        let mut phone = Phone::new();
        let channel = Channel::open(&mut phone);
        let paid = [Htlc::incoming(hash, committed_msat)];
        let paid = &paid[..usize::from(committed_msat > 0)];
        commit(&mut phone, &channel, paid, paid);
        audit(&phone, &[(hash, asked_msat)]);
        let op = SignerOp {
            channel_keys_id: KEYS_ID.to_vec(),
            op: Some(claim(hash, said)),
        };
        phone.said.push((op, Answer::Preimage(entropy.to_vec())));
        let violation = audited(&phone, &[(hash, asked_msat)]).unwrap_err();
        assert!(violation.to_string().contains("committed"), "{violation}");
    }
}

/// Its commitments have a dust limit of 354 sat.
#[test]
fn a_small_htlc_that_stands_in_the_commitments_is_not_counted_twice() {
    let mut phone = Phone::new();
    let hash = received(&mut phone, 500_000, 400_000);
    for too_little in [vec![part(400_000)], vec![part(400_000), part(99_999)]] {
        assert_eq!(
            phone.refused(claim(hash, too_little)),
            Rule::PreimageUnderpaid
        );
    }
    phone
        .ask(claim(hash, vec![part(400_000), part(100_000)]))
        .unwrap();
    assert_eq!(received_msat(&phone, hash), 500_000);
}

/// The amount that the ledger has as received for a payment.
fn received_msat(phone: &Phone, payment_hash: [u8; 32]) -> u64 {
    let mut payments = phone.signer.payments();
    let payment = payments.find(|payment| payment.payment_hash == payment_hash);
    payment.unwrap().released.unwrap().received_msat
}

#[test]
fn intents_are_kept_and_their_ids_mean_one_thing() {
    let mut phone = Phone::new();
    let records = phone
        .signer
        .add_intent([1; 32], 5_000, 50, NOW + 60, NOW)
        .unwrap()
        .records;
    phone.keep(&records);
    let records = phone
        .signer
        .add_onchain_intent(b"id", "bcrt1q", 7, 1, NOW)
        .unwrap()
        .records;
    phone.keep(&records);
    assert!(
        phone
            .signer
            .add_onchain_intent(b"id", "bcrt1q", 7, 1, NOW + 9)
            .unwrap()
            .records
            .is_empty()
    );
    assert_eq!(
        phone
            .signer
            .add_onchain_intent(b"id", "bcrt1q", 8, 1, NOW)
            .unwrap_err()
            .rule,
        Rule::Duplicate
    );
    let close = |force| ChannelIntent::Close {
        address: String::new(),
        channel_id: vec![2; 32],
        force,
    };
    for intent in [close(false), close(true)] {
        let records = phone
            .signer
            .add_channel_intent(intent, NOW)
            .unwrap()
            .records;
        phone.keep(&records);
    }
    phone.restart();
    assert_eq!(phone.signer.intents().next().unwrap().max_fee_msat, 50);
    assert_eq!(
        phone.signer.onchain_intents().next().unwrap().address,
        "bcrt1q"
    );
    assert_eq!(
        phone.signer.channel_intents().collect::<Vec<_>>(),
        [&close(true)]
    );
}

#[test]
fn an_intent_awaits_delivery_across_restarts_and_compaction() {
    let mut phone = Phone::new();
    let peer = SecretKey::from_slice(&[5; 32]).unwrap();
    let peer = peer.public_key(&Secp256k1::new());
    let open = |id: &[u8]| ChannelIntent::Open {
        id: id.to_vec(),
        counterparty_node_id: peer,
        amount_sat: 20_000,
        announced: true,
        max_fee_sat: 0,
    };
    for id in [b"ended send".as_slice(), b"open send"] {
        let added = phone.signer.add_onchain_intent(id, "bcrt1q", 7, 1, NOW);
        phone.keep(&added.unwrap().records);
        let added = phone.signer.add_channel_intent(open(&id[..5]), NOW);
        phone.keep(&added.unwrap().records);
        if id == b"ended send" {
            for id in [id, &id[..5]] {
                let ended = phone.signer.result_delivered(id).unwrap();
                assert_eq!(ended.records.len(), 1);
                phone.keep(&ended.records);
                assert!(
                    phone
                        .signer
                        .result_delivered(id)
                        .unwrap()
                        .records
                        .is_empty()
                );
            }
        }
    }

    for compacts in [false, true] {
        if compacts {
            let snapshot = phone.signer.snapshot();
            phone.disk = vec![snapshot.as_bytes().to_vec()];
        }
        phone.restart();
        let signer = &phone.signer;
        assert_eq!(signer.onchain_intents().count(), 2);
        let found = signer.undelivered_send("bcrt1q", 7);
        assert_eq!(found, Some(b"open send".as_slice()));
        assert_eq!(signer.undelivered_send("bcrt1q", 8), None);
        assert_eq!(signer.undelivered_send("bcrt1p", 7), None);
        let found = signer.undelivered_open(&peer, 20_000, true);
        assert_eq!(found, Some(b"open ".as_slice()));
        assert_eq!(signer.undelivered_open(&peer, 20_000, false), None);
        assert_eq!(signer.undelivered_open(&peer, 20_001, true), None);
    }

    // Until then it may cost more, and never less.
    for (max_fee_sat, records, kept) in [(5, 1, 5), (2, 0, 5)] {
        let added = phone
            .signer
            .add_onchain_intent(b"open send", "bcrt1q", 7, max_fee_sat, NOW);
        assert_eq!(added.unwrap().records.len(), records);
        let intents = phone.signer.onchain_intents();
        let fees: Vec<_> = intents.map(|intent| intent.max_fee_sat).collect();
        assert_eq!(fees, [1, kept]);
    }
    let refused = phone
        .signer
        .add_onchain_intent(b"ended send", "bcrt1q", 7, 5, NOW);
    assert_eq!(refused.unwrap_err().rule, Rule::Duplicate);

    for id in [b"open send".as_slice(), b"open "] {
        drop(phone.signer.result_delivered(id).unwrap());
    }
    assert_eq!(phone.signer.undelivered_send("bcrt1q", 7), None);
    assert_eq!(phone.signer.undelivered_open(&peer, 20_000, true), None);
}
