//! Answers as text for people, or as one JSON object.

use std::fmt::Write;
use std::path::PathBuf;

use longhand_phone::OwnerReply;
use longhand_phone::command::{
    Apps, Balance, ChainView, Channel, ChannelInChain, ClosedChannel, ConnectedApp, HtlcInChain,
    Info, Limit, LimitList, OnchainSend, OpenInvoice, Payment, Refusal, RefusalList, WakeUrls,
};
use longhand_phone::preview::PaymentPreview;
use longhand_proto::utc;
use serde::Serialize;
use zeroize::Zeroizing;

/// Characters of a description that a table shows.
const MOST_IN_TABLE: usize = 40;

/// An answer that can be shown.
pub(super) trait Show: Serialize {
    /// For people; ends with a line break.
    fn text(&self) -> String;
}

/// Prints to standard output. An output that is closed is no error.
pub(super) fn print(answer: &impl Show, json: bool) {
    use std::io::Write;
    let text = match json {
        true => serde_json::to_string(answer).unwrap_or_default() + "\n",
        false => answer.text(),
    };
    let text = Zeroizing::new(text);
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Of `new` and `restore`.
#[derive(Serialize)]
#[serde(tag = "reply", rename = "created")]
pub(super) struct Created {
    pub node_id: String,
    pub network: String,
    pub dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain")]
    pub mnemonic: Option<Zeroizing<String>>,
}

fn plain<S: serde::Serializer>(
    words: &Option<Zeroizing<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(words.as_ref().map_or("", |words| words))
}

impl Show for Created {
    fn text(&self) -> String {
        let mut text = lines(&[
            ("node id", self.node_id.clone()),
            ("network", self.network.clone()),
            ("directory", self.dir.display().to_string()),
        ]);
        match &self.mnemonic {
            Some(words) => {
                text.push_str("\nThese words are your money. Write them down; they are not shown again.\n\n");
                for (row, words) in words.split(' ').collect::<Vec<_>>().chunks(4).enumerate() {
                    for (column, word) in words.iter().enumerate() {
                        let _ = write!(text, "{:>4} {word:<10}", 4 * row + column + 1);
                    }
                    text.truncate(text.trim_end().len());
                    text.push('\n');
                }
                text.push_str(
                    "\nThey restore the on-chain wallet. Channels need the directory too, as it is now: never go back to an older copy of it.\n",
                );
            }
            None => text.push_str(
                "\nPair this phone with a host: it searches the chain for the coins of these words. Channels of this seed do not come back: they need the ledger of the phone that had them.\n",
            ),
        }
        text
    }
}

/// Of `pair`.
#[derive(Serialize)]
#[serde(tag = "reply", rename = "paired")]
pub(super) struct Paired {
    pub node_id: String,
    /// The host searches for the coins of restored words.
    #[serde(skip)]
    pub is_restored: bool,
}

impl Show for Paired {
    fn text(&self) -> String {
        let mut text = format!("paired; the host runs node {}\n", self.node_id);
        if self.is_restored {
            text.push_str(
                "The host searches the chain for the coins of these words: `longhand phone balance` shows them as they are found.\n",
            );
        }
        text
    }
}

/// Of `pair`, when the search for the coins of restored words is complete.
#[derive(Serialize)]
#[serde(tag = "reply", rename = "searched")]
pub(super) struct Back {
    pub onchain_sat: u64,
}

impl Show for Back {
    fn text(&self) -> String {
        format!("The on-chain wallet is back: {}.\n", sat(self.onchain_sat))
    }
}

/// Of `run`, when it is.
#[derive(Serialize)]
#[serde(tag = "reply", rename = "attached")]
pub(super) struct Attached {
    pub node_id: String,
}

impl Show for Attached {
    fn text(&self) -> String {
        format!("attached to node {}; Ctrl-C leaves\n", self.node_id)
    }
}

impl Show for OwnerReply {
    fn text(&self) -> String {
        match self {
            OwnerReply::Info(info) => info_text(info),
            OwnerReply::Balance(balance) => balance_text(balance),
            OwnerReply::Address(address) => format!("{}\n", address.address),
            OwnerReply::Opened(channel) => lines(&[
                ("channel", channel.channel_id.clone()),
                ("funding", channel.funding_outpoint.clone()),
                (
                    "state",
                    if channel.usable {
                        "usable"
                    } else {
                        "waits for confirmations"
                    }
                    .into(),
                ),
            ]),
            OwnerReply::Invoice(invoice) => format!("{}\n", invoice.bolt11),
            OwnerReply::Paid(payment) => lines(&[
                ("paid", msat(payment.amount_msat)),
                ("fee", msat(payment.fee_msat)),
                ("proof", payment.preimage.clone()),
            ]),
            OwnerReply::Sent(sent) => lines(&[
                ("transaction", sent.txid.clone()),
                ("fee", sat(sent.fee_sat)),
            ]),
            OwnerReply::Channels(list) => {
                let open = match list.channels.is_empty() {
                    true => "no channels\n".into(),
                    false => channels_text(&list.channels),
                };
                open + &closed_text(&list.closed)
            }
            OwnerReply::Payments(list) if list.payments.is_empty() => "no payments\n".into(),
            OwnerReply::Payments(list) => payments_text(&list.payments) + &older(&list.next),
            OwnerReply::Payment(payment) => payment_text(payment),
            OwnerReply::Invoices(list) if list.invoices.is_empty() => "no open invoices\n".into(),
            OwnerReply::Invoices(list) => {
                let texts: Vec<String> = list.invoices.iter().map(invoice_text).collect();
                texts.join("\n")
            }
            OwnerReply::Sends(list) if list.sends.is_empty() => "no on-chain payments\n".into(),
            OwnerReply::Sends(list) => {
                let texts: Vec<String> = list.sends.iter().map(send_text).collect();
                texts.join("\n")
            }
            OwnerReply::Closing(closing) if !closing.agreed => {
                "closing; the peer has not agreed yet, stay attached with `longhand phone run`\n"
                    .into()
            }
            OwnerReply::Closing(closing) if closing.txid.is_empty() => {
                "closed; the money comes when the transaction confirms\n".into()
            }
            OwnerReply::Closing(closing) => format!("closing by {}\n", closing.txid),
            OwnerReply::Connected {} => "connected\n".into(),
            OwnerReply::WakeUrls(known) => wake_urls_text(known),
            OwnerReply::ConnectedApp(app) => connected_app_text(app),
            OwnerReply::Apps(known) => apps_text(known),
            OwnerReply::Limits(list) => limits_text(list),
            OwnerReply::Refusals(list) => refusals_text(list),
            OwnerReply::Chain(seen) => chain_text(seen),
        }
    }
}

fn limits_text(list: &LimitList) -> String {
    let row = |limit: &Limit| {
        let changed = match limit.value == limit.default {
            true => String::new(),
            false => format!("(default: {}) ", limit.default),
        };
        let about = format!("{changed}{}", limit.about);
        vec![limit.name.clone(), limit.value.clone(), about]
    };
    let rows: Vec<Vec<String>> = list.limits.iter().map(row).collect();
    table(&["limit", ">value", "meaning"], &rows)
}

fn refusals_text(list: &RefusalList) -> String {
    if list.refusals.is_empty() {
        return "nothing was refused\n".into();
    }
    let row = |refusal: &Refusal| {
        let done = match refusal.is_warning {
            true => "signed, with a warning",
            false => "refused",
        };
        vec![
            utc(refusal.last_unix_s),
            refusal.count.to_string(),
            refusal.rule.clone(),
            done.to_owned(),
            refusal.message.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = list.refusals.iter().map(row).collect();
    table(&["last", ">times", "rule", "result", "reason"], &rows)
}

fn chain_text(seen: &ChainView) -> String {
    let age = match seen.is_stale {
        true => {
            "\nThis is old: nothing that could lose money is signed until the host shows a later block."
        }
        false => "",
    };
    let tip = format!(
        "newest block: {} of {}{age}\n",
        seen.height,
        utc(seen.time_unix_s)
    );
    let row = |channel: &ChannelInChain| {
        let state = match (channel.is_closed, channel.confirmations) {
            (true, _) => format!("closed {}", channel.closed_by),
            (false, 0) => "not proven: payments over it do not count".into(),
            (false, some) if some < channel.confirmations_needed => {
                format!("{} blocks are needed", channel.confirmations_needed)
            }
            _ if channel.filtered_up_to > 0 => format!(
                "proven, open by the host's filters up to block {}",
                channel.filtered_up_to
            ),
            _ => "proven".into(),
        };
        vec![
            channel.funding_outpoint.clone(),
            channel.amount_sat.to_string(),
            channel.confirmations.to_string(),
            state,
        ]
    };
    let rows: Vec<Vec<String>> = seen.channels.iter().map(row).collect();
    let channels = match rows.is_empty() {
        true => String::new(),
        false => table(&["channel", ">sat", ">blocks", "state"], &rows),
    };
    let htlcs = seen.channels.iter().flat_map(|channel| &channel.htlcs);
    let rows: Vec<Vec<String>> = htlcs.map(htlc_row).collect();
    let htlcs = match rows.is_empty() {
        true => String::new(),
        false => table(
            &["HTLC of a closed channel", ">msat", ">expires", "state"],
            &rows,
        ),
    };
    let deadline = seen
        .next_deadline
        .as_ref()
        .map_or_else(String::new, |next| {
            format!(
                "attach before block {} (about {}): payment {} of {} msat\n",
                next.height,
                utc(next.at_unix_s),
                next.payment_hash,
                next.amount_msat
            )
        });
    let source = match &seen.second_source {
        None => "no second source is asked: that a channel is open is the host's word, or for large payments what its filters show (`longhand phone limits second_source URL`)\n".into(),
        Some(it) if it.error.is_empty() => {
            format!("second source: {}, asked {}\n", it.place, utc(it.asked_unix_s))
        }
        Some(it) => format!("second source: {}, not asked: {}\n", it.place, it.error),
    };
    [tip, channels, htlcs, source, deadline].concat()
}

fn htlc_row(htlc: &HtlcInChain) -> Vec<String> {
    let whose = match htlc.outbound {
        true => "to the peer, payment",
        false => "to the owner, payment",
    };
    let state = match (htlc.spent_height, htlc.claimed) {
        (0, _) => "not spent yet".into(),
        (height, true) => format!("claimed in block {height} by {}", htlc.spent_by),
        (height, false) => format!(
            "claimed or taken back in block {height} by {}",
            htlc.spent_by
        ),
    };
    vec![
        format!("{whose} {}", htlc.payment_hash),
        htlc.amount_msat.to_string(),
        htlc.expiry_height.to_string(),
        state,
    ]
}

fn connected_app_text(app: &ConnectedApp) -> String {
    let mailboxes = app.mailboxes.join(", ");
    let until = utc(app.words_expire_unix_s);
    format!(
        "{}\n\nType these words into the app, with the mailbox {mailboxes}, before {until}.\nWhoever has them first has the app's rights.\n",
        app.words
    )
}

fn apps_text(known: &Apps) -> String {
    if known.apps.is_empty() {
        return "no app is connected\n".into();
    }
    let lines = known.apps.iter().map(|app| {
        let rights = longhand_proto::command::AppRights::from(app.rights).names();
        let until = match app.expires_unix_s {
            0 => String::new(),
            expires => format!(", until {}", utc(expires)),
        };
        let state = if app.is_paired {
            ""
        } else {
            ", not paired yet"
        };
        let by = if app.by_operator {
            ", by the operator"
        } else {
            ""
        };
        format!(
            "{:<32}  {}{until}{state}{by}\n",
            app.name,
            rights.join(", ")
        )
    });
    lines.collect()
}

fn wake_urls_text(known: &WakeUrls) -> String {
    let mut text = match known.urls.is_empty() {
        true => "the host calls no URL of this phone\n".into(),
        false => known.urls.join("\n") + "\n",
    };
    if known.operator_has_one {
        text.push_str("the operator of the host has one for this owner too\n");
    }
    text
}

fn send_text(send: &OnchainSend) -> String {
    let amount = match send.amount_sat {
        0 => "all".into(),
        amount_sat => sat(amount_sat),
    };
    lines(&[
        ("date", utc(send.created_unix_s)),
        ("state", send.state.clone()),
        ("to", send.address.clone()),
        ("amount", amount),
        ("fee", sat(send.fee_sat)),
        ("transaction", or_dash(&send.txid)),
        ("replaced", send.replaced_txids.join(" ")),
        ("problem", send.problem.clone()),
    ])
}

fn info_text(info: &Info) -> String {
    lines(&[
        ("node id", info.node_id.clone()),
        ("network", info.network.clone()),
        ("state", info.state.clone()),
        ("block height", grouped(info.block_height.into())),
        (
            "channels",
            format!("{}, {} usable", info.channels, info.usable_channels),
        ),
        ("peers", info.peers.to_string()),
        ("hub", or_dash(&info.hub_node_id)),
        ("host", info.host_version.clone()),
        (
            "signed",
            format!(
                "{} operations in {} batches",
                info.signer_ops, info.signer_batches
            ),
        ),
        (
            "searched",
            searched(info.scanned_height, info.scan_target_height),
        ),
        ("search waits", info.scan_problem.clone()),
    ])
}

/// How far the search for the coins of restored words is; empty without one.
fn searched(scanned_height: u32, target_height: u32) -> String {
    let (scanned, target) = (
        grouped(scanned_height.into()),
        grouped(target_height.into()),
    );
    match (target_height, scanned_height >= target_height) {
        (0, _) => String::new(),
        (_, true) => format!("all blocks up to {scanned}"),
        (_, false) => format!("block {scanned} of {target}"),
    }
}

fn balance_text(balance: &Balance) -> String {
    let amounts = table(
        &["", ">"],
        &[
            vec!["on chain".into(), sat(balance.onchain_confirmed_sat)],
            vec!["  not confirmed".into(), sat(balance.onchain_pending_sat)],
            vec!["  from closed channels".into(), sat(balance.closing_sat)],
            vec!["lightning".into(), msat(balance.lightning_msat)],
            vec![
                "  can be received".into(),
                msat(balance.inbound_capacity_msat),
            ],
        ],
    );
    amounts + &unsearched_text(balance)
}

/// Empty when the on-chain amounts are complete.
fn unsearched_text(balance: &Balance) -> String {
    let (scanned, target) = (balance.scanned_height, balance.scan_target_height);
    if scanned >= target {
        return String::new();
    }
    let mut text = format!(
        "found so far: the host is searching {} for the coins of these words\n",
        searched(scanned, target)
    );
    if !balance.scan_problem.is_empty() {
        let _ = writeln!(text, "the search waits: {}", balance.scan_problem);
    }
    text
}

fn channels_text(channels: &[Channel]) -> String {
    let rows = channels.iter().map(|channel| {
        vec![
            channel.channel_id.clone(),
            short(&channel.counterparty_node_id),
            channel.state.clone(),
            grouped(channel.capacity_sat),
            msat_as_sat(channel.balance_msat),
            msat_as_sat(channel.outbound_msat),
            msat_as_sat(channel.inbound_msat),
            channel.pending_htlcs.to_string(),
        ]
    });
    let columns = [
        "channel",
        "peer",
        "state",
        ">capacity",
        ">ours",
        ">can send",
        ">can receive",
        ">in flight",
    ];
    table(&columns, &rows.collect::<Vec<_>>()) + "amounts in satoshis\n"
}

/// Empty when there are none.
fn closed_text(closed: &[ClosedChannel]) -> String {
    let line = |channel: &ClosedChannel| {
        let txid = match channel.closing_txid.as_str() {
            "" => {
                "none yet (if `refusals` shows that it waits for you, `close ID --force` allows it)"
            }
            txid => txid,
        };
        let (id, reason) = (&channel.channel_id, &channel.reason);
        format!("closed: {id} ({reason}), by transaction: {txid}\n")
    };
    closed.iter().map(line).collect()
}

fn payments_text(payments: &[Payment]) -> String {
    let rows = payments.iter().map(|payment| {
        vec![
            payment.payment_hash.clone(),
            direction(payment).into(),
            payment.state.as_str().into(),
            msat_as_sat(payment.amount_msat),
            msat_as_sat(payment.fee_msat),
            utc(payment.created_unix_s),
            shortened(&payment.description),
            payment.failure.clone(),
        ]
    });
    let columns = [
        "payment", "", "state", ">amount", ">fee", "begun", "for", "",
    ];
    table(&columns, &rows.collect::<Vec<_>>()) + "amounts in satoshis\n"
}

/// How the list goes on; empty when it does not.
fn older(next: &str) -> String {
    match next {
        "" => String::new(),
        next => format!("older ones: longhand phone payments --before {next}\n"),
    }
}

fn payment_text(payment: &Payment) -> String {
    lines(&[
        ("payment", payment.payment_hash.clone()),
        ("direction", direction(payment).into()),
        ("state", payment.state.as_str().into()),
        ("amount", msat(payment.amount_msat)),
        ("fee", msat(payment.fee_msat)),
        ("for", payment.description.clone()),
        ("payee", payment.payee_node_id.clone()),
        ("begun", date(payment.created_unix_s)),
        ("ended", date(payment.ended_unix_s)),
        ("expires", date(payment.expires_unix_s)),
        ("failure", payment.failure.clone()),
        ("proof", payment.preimage.clone()),
        ("invoice", payment.bolt11.clone()),
    ])
}

fn invoice_text(invoice: &OpenInvoice) -> String {
    let amount = match invoice.amount_msat {
        0 => "any".into(),
        amount => msat(amount),
    };
    lines(&[
        ("payment", invoice.payment_hash.clone()),
        ("amount", amount),
        ("for", invoice.description.clone()),
        ("made", date(invoice.created_unix_s)),
        ("expires", date(invoice.expires_unix_s)),
        ("invoice", invoice.bolt11.clone()),
    ])
}

/// A payment before it is made.
pub(super) fn payment_preview(preview: &PaymentPreview) -> String {
    lines(&[
        ("amount", msat(preview.amount_msat)),
        ("at most for routing", msat(preview.max_fee_msat)),
        ("for", preview.description.clone()),
        ("payee", preview.payee_node_id.clone()),
        ("expires", preview.expires.clone()),
    ])
}

fn direction(payment: &Payment) -> &'static str {
    if payment.outbound { "out" } else { "in" }
}

/// Empty for a time that is not known.
fn date(unix_s: u64) -> String {
    match unix_s {
        0 => String::new(),
        unix_s => utc(unix_s),
    }
}

/// The beginning of a text, for a table.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_IN_TABLE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}

/// Names on the left, values beside them; those without a value are left out.
fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let filled = pairs.iter().filter(|(_, value)| !value.is_empty());
    filled
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

/// Columns as wide as their widest cell. A heading that begins with `>` has its column on the right; without any
/// heading there is no heading line.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let names: Vec<_> = headings
        .iter()
        .map(|heading| heading.trim_start_matches('>'))
        .collect();
    let heading: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let has_heading = names.iter().any(|name| !name.is_empty());
    let shown: Vec<_> = has_heading
        .then_some(&heading)
        .into_iter()
        .chain(rows)
        .collect();
    let width = |column: usize| {
        shown
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..headings.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in shown {
        let mut line = String::new();
        for ((cell, width), heading) in row.iter().zip(&widths).zip(headings) {
            let _ = match heading.starts_with('>') {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn sat(sat: u64) -> String {
    format!("{} sat", grouped(sat))
}

fn msat(msat: u64) -> String {
    format!("{} sat", msat_as_sat(msat))
}

/// Satoshis, with three decimals where there are parts of one.
fn msat_as_sat(msat: u64) -> String {
    match msat % 1_000 {
        0 => grouped(msat / 1_000),
        part => format!("{}.{part:03}", grouped(msat / 1_000)),
    }
}

/// 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn short(hex: &str) -> String {
    match hex.get(..12) {
        Some(start) => format!("{start}…"),
        None => hex.into(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use longhand_phone::command::{PaymentState, Payments};

    use super::*;

    fn payment() -> Payment {
        Payment {
            payment_hash: "ab".repeat(32),
            outbound: true,
            amount_msat: 1_500,
            fee_msat: 0,
            state: PaymentState::Succeeded,
            preimage: String::new(),
            created_unix_s: 1_795_888_800,
            failure: String::new(),
            ended_unix_s: 1_795_888_801,
            description: "two cups of tea".into(),
            payee_node_id: "02".repeat(33),
            bolt11: "lnbcrt1x".into(),
            expires_unix_s: 0,
        }
    }

    #[test]
    fn a_list_of_payments_has_dates_and_texts_and_says_how_it_goes_on() {
        let list = OwnerReply::Payments(Payments {
            payments: vec![payment()],
            next: "0011".into(),
        });
        let text = list.text();
        assert!(text.contains("2026-11-28 18:00:00 UTC"), "{text}");
        assert!(text.contains("two cups of tea"), "{text}");
        assert!(text.contains("--before 0011"), "{text}");
    }

    #[test]
    fn one_payment_is_shown_with_its_payee_and_invoice() {
        let text = OwnerReply::Payment(payment()).text();
        for part in ["020202", "lnbcrt1x", "18:00:01", "1.500 sat"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("expires"), "{text}");
    }

    #[test]
    fn amounts_are_grouped_and_keep_their_parts() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(2_100_000_000_000_000), "2,100,000,000,000,000");
        assert_eq!(msat(1_234_567), "1,234.567 sat");
        assert_eq!(msat(5_000), "5 sat");
        assert_eq!(msat(1), "0.001 sat");
    }

    #[test]
    fn wake_urls_are_shown_with_whether_the_operator_has_one() {
        let shown = |urls: &[&str], operator_has_one| {
            wake_urls_text(&WakeUrls {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                operator_has_one,
            })
        };
        let url = "https://push.example/";
        assert_eq!(shown(&[url], false), "https://push.example/\n");
        assert_eq!(
            shown(&[], true),
            "the host calls no URL of this phone\nthe operator of the host has one for this owner too\n"
        );
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [
            vec!["a".into(), "1".into()],
            vec!["long".into(), "23".into()],
        ];
        assert_eq!(
            table(&["name", ">n"], &rows),
            "name   n\na      1\nlong  23\n"
        );
        assert_eq!(table(&["", ">"], &rows), "a      1\nlong  23\n");
    }

    #[test]
    fn new_words_are_numbered_and_shown() {
        let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let created = Created {
            node_id: "02".into(),
            network: "regtest".into(),
            dir: "phone".into(),
            mnemonic: Some(words.to_owned().into()),
        };
        assert!(
            created
                .text()
                .contains("   9 abandon     10 abandon     11 abandon     12 about\n")
        );
        let json: serde_json::Value = serde_json::to_value(&created).unwrap();
        assert_eq!(json["mnemonic"], words);
        assert_eq!(json["reply"], "created");
    }

    #[test]
    fn a_balance_says_that_the_search_for_coins_is_not_complete() {
        let balance = |scanned_height, scan_problem: &str| Balance {
            onchain_confirmed_sat: 499_844,
            onchain_pending_sat: 0,
            lightning_msat: 0,
            closing_sat: 0,
            inbound_capacity_msat: 0,
            scanned_height,
            scan_target_height: 900_000,
            scan_problem: scan_problem.into(),
        };
        let text = balance_text(&balance(
            500_000,
            "BLOCK_PRUNED: it has pruned block 500,001",
        ));
        assert!(text.contains("499,844 sat"), "{text}");
        assert!(text.contains("block 500,000 of 900,000"), "{text}");
        assert!(text.contains("waits: BLOCK_PRUNED"), "{text}");
        let complete = balance_text(&balance(900_000, ""));
        assert!(!complete.contains("so far"), "{complete}");
    }

    #[test]
    fn words_that_were_restored_are_not_said_to_have_their_coins_back() {
        let created = Created {
            node_id: "02".into(),
            network: "regtest".into(),
            dir: "phone".into(),
            mnemonic: None,
        };
        assert!(!created.text().contains("is back"), "{}", created.text());
        let back = Back {
            onchain_sat: 499_844,
        };
        assert_eq!(back.text(), "The on-chain wallet is back: 499,844 sat.\n");
    }

    #[test]
    fn a_restored_phone_shows_no_words() {
        let created = Created {
            node_id: "02".into(),
            network: "regtest".into(),
            dir: "phone".into(),
            mnemonic: None,
        };
        assert!(
            serde_json::to_value(&created)
                .unwrap()
                .get("mnemonic")
                .is_none()
        );
    }
}
