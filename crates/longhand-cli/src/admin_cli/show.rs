//! Answers of the host as text for people, or as one JSON object.

use bitcoin::hex::DisplayHex;
use longhand_link::PairingCode as LinkPairingCode;
use longhand_proto::operator::*;
use longhand_proto::utc;
use serde_json::{Value, json};

/// An answer in both forms.
pub(super) struct Shown {
    json: Value,
    text: String,
}

impl Shown {
    /// To standard output. An output that is closed is no error.
    pub(super) fn print(&self, json: bool) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        let written = match json {
            true => writeln!(out, "{}", self.json),
            false => writeln!(out, "{}", self.text.trim_end()),
        };
        let _ = written.and_then(|()| out.flush());
    }
}

pub(super) fn done(word: &str) -> Shown {
    Shown {
        json: json!({ "ok": true }),
        text: word.to_owned(),
    }
}

pub(super) fn change(change: &HostChange) -> Shown {
    let HostChange {
        unix_s,
        kind,
        owner,
        detail,
        ..
    } = change;
    let parts = [&utc(*unix_s), kind, owner, detail];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    Shown {
        json: json!(change),
        text: parts.map(String::as_str).collect::<Vec<_>>().join("  "),
    }
}

pub(super) fn status(status: &StatusReply) -> Shown {
    let json = json!({
        "version": status.version,
        "network": status.network,
        "block_height": status.block_height,
        "chain_reachable": status.chain_reachable,
        "hub_node_id": hex(&status.hub_node_id),
        "owners": status.owners,
        "nodes": status.nodes,
        "links": status.links,
        "link_addresses": status.link_addresses,
        "peer_address": status.peer_address,
        "peer_onion_address": (!status.peer_onion_address.is_empty()).then_some(&status.peer_onion_address),
        "tip_age_s": status.tip_age_s,
        "problems": status.problems,
        "hub_reserve": status.hub_reserve.map(|reserve| json!({
            "onchain_sat": reserve.onchain_sat,
            "wanted_sat": reserve.wanted_sat,
            "wanted_for_next_sat": reserve.wanted_for_next_sat,
        })),
        "fee_rates": status.fee_rates.map(|rates| json!({
            "urgent_sat_per_kw": rates.urgent,
            "normal_sat_per_kw": rates.normal,
            "background_sat_per_kw": rates.background,
            "minimum_sat_per_kw": rates.minimum,
            "is_estimate": rates.is_estimate,
        })),
    });
    let age = status.tip_age_s.map_or_else(String::new, |age_s| {
        format!(", found {} minutes ago", age_s / 60)
    });
    let away = match status.chain_reachable {
        true => "",
        false => ", and the source cannot be reached now",
    };
    let chain = format!("height {}{age}{away}", status.block_height);
    let hub = match status.hub_node_id.is_empty() {
        true => "does not run yet".to_owned(),
        false => format!("{}@{}", hex(&status.hub_node_id), status.peer_address),
    };
    let fees = status.fee_rates.map_or_else(String::new, |rates| {
        let source = match rates.is_estimate {
            true => "estimated",
            false => "the fallback: there is no estimate",
        };
        format!("{} sat per 1,000 weight units, {source}", rates.normal)
    });
    let coins = status.hub_reserve.map_or_else(String::new, |reserve| {
        format!(
            "{} sat on chain, {} sat of them for its channels",
            reserve.onchain_sat, reserve.wanted_sat
        )
    });
    let mut text = lines(&[
        ("version", status.version.clone()),
        ("network", status.network.clone()),
        ("chain", chain),
        ("fee rate", fees),
        ("hub", hub),
        ("hub's coins", coins),
        ("owners", status.owners.to_string()),
        ("nodes", status.nodes.to_string()),
        ("links", status.links.to_string()),
        ("phones dial", status.link_addresses.join(", ")),
    ]);
    for problem in &status.problems {
        text.push_str(&format!("problem: {problem}\n"));
    }
    Shown { json, text }
}

/// The code as text, and as a picture for the phone's camera.
pub(super) fn pairing_code(code: &PairingCode) -> Shown {
    let json = json!({
        "owner": code.owner,
        "code": code.code,
        "expires_unix_s": code.expires_unix_s,
        "words": code.words,
        "words_at": code.words_at,
    });
    let qr = code
        .code
        .parse::<LinkPairingCode>()
        .ok()
        .and_then(|code| code.to_qr().ok());
    let words = match code.words_at.first() {
        Some(at) => format!("Or ten words, with --mailbox {at}:\n{}\n\n", code.words),
        None => String::new(),
    };
    let text = format!(
        "{}\n\n{}\n\n{words}For the phone of {} alone: whoever has this code first is the owner.",
        qr.unwrap_or_default(),
        code.code,
        code.owner
    );
    Shown { json, text }
}

/// The words and the macaroon of an app.
pub(super) fn connected_app(app: &ConnectedApp) -> Shown {
    let json = json!({
        "words": app.words,
        "mailboxes": app.mailboxes,
        "words_expire_unix_s": app.words_expire_unix_s,
        "macaroon": app.macaroon,
    });
    let words = match app.words.is_empty() {
        true => String::new(),
        false => format!(
            "words for the app, at the mailbox {}, before {}:\n{}\n\n",
            app.mailboxes.join(", "),
            utc(app.words_expire_unix_s),
            app.words
        ),
    };
    let macaroon = &app.macaroon;
    let text = format!(
        "{words}macaroon for apps.listen:\n{macaroon}\n\nWhoever has either sees what the app may see."
    );
    Shown { json, text }
}

/// An owner's apps.
pub(super) fn apps(reply: &ListAppsReply) -> Shown {
    let apps = reply.apps.iter().map(|app| {
        json!({
            "name": app.name,
            "rights": app.rights,
            "expires_unix_s": app.expires_unix_s,
            "is_paired": app.is_paired,
            "by_operator": app.by_operator,
        })
    });
    let json = json!({ "apps": apps.collect::<Vec<_>>() });
    let shown = reply.apps.iter().map(|app| {
        let state = if app.is_paired {
            ""
        } else {
            ", not paired yet"
        };
        let by = match app.by_operator {
            true => "the operator",
            false => "the owner",
        };
        format!(
            "{:<32}  {}, by {by}{state}",
            app.name,
            app.rights.join(", ")
        )
    });
    let text = match reply.apps.is_empty() {
        true => "no app is connected".into(),
        false => shown.collect::<Vec<_>>().join("\n"),
    };
    Shown { json, text }
}

pub(super) fn wake_urls(reply: &SetWakeUrlReply) -> Shown {
    let json = json!({ "wake_url": reply.wake_url, "phone_wake_urls": reply.phone_wake_urls });
    let none = |url: String| match url.is_empty() {
        true => "none".to_owned(),
        false => url,
    };
    let text = lines(&[
        ("the operator's", none(reply.wake_url.clone())),
        ("the phone's", none(reply.phone_wake_urls.join(" "))),
    ]);
    Shown { json, text }
}

pub(super) fn owners(reply: &ListOwnersReply) -> Shown {
    let json = reply.owners.iter().map(|owner| {
        json!({
            "name": owner.name,
            "paired": owner.paired,
            "node_id": hex(&owner.node_id),
            "link_live": owner.link_live,
            "wake_url": owner.wake_url,
            "phone_wake_urls": owner.phone_wake_urls,
            "problem": owner.problem,
        })
    });
    let rows = reply.owners.iter().map(|owner| {
        let phone = match (owner.paired, owner.link_live) {
            (_, true) => "here",
            (true, false) => "away",
            (false, false) => "not paired",
        };
        vec![
            owner.name.clone(),
            phone.to_owned(),
            hex(&owner.node_id),
            owner.wake_url.clone(),
            owner.phone_wake_urls.join(" "),
            owner.problem.clone(),
        ]
    });
    Shown {
        json: json!({ "owners": json.collect::<Vec<_>>() }),
        text: table(
            &[
                "owner",
                "phone",
                "node id",
                "wake URL",
                "phone's wake URLs",
                "problem",
            ],
            rows.collect(),
        ),
    }
}

pub(super) fn nodes(reply: &ListNodesReply) -> Shown {
    let json = reply.nodes.iter().map(|node| {
        json!({
            "owner": node.owner,
            "node_id": hex(&node.node_id),
            "state": node.state,
            "channels": node.channels,
            "usable_channels": node.usable_channels,
            "peers": node.peers,
            "pending_htlcs": node.pending_htlcs,
            "deadline_height": node.deadline_height,
            "lightning_msat": node.lightning_msat,
            "onchain_sat": node.onchain_sat,
            "onchain_pending_sat": node.onchain_pending_sat,
            "closing_sat": node.closing_sat,
            "restarts_after_panic": node.restarts_after_panic,
            "signer_chain": node.signer_chain,
            "signer_batches": node.signer_batches,
            "problem": node.problem,
        })
    });
    let rows = reply.nodes.iter().map(|node| {
        vec![
            node.owner.clone(),
            node.state.clone(),
            format!("{}/{}", node.usable_channels, node.channels),
            node.lightning_msat.to_string(),
            (node.onchain_sat + node.onchain_pending_sat).to_string(),
            node.closing_sat.to_string(),
            hex(&node.node_id),
            node.problem.clone(),
        ]
    });
    let head = [
        "owner",
        "state",
        "usable",
        "lightning msat",
        "on chain sat",
        "closing sat",
        "node id",
        "problem",
    ];
    Shown {
        json: json!({ "nodes": json.collect::<Vec<_>>() }),
        text: table(&head, rows.collect()),
    }
}

pub(super) fn hub_address(reply: &HubAddressReply) -> Shown {
    Shown {
        json: json!({ "address": reply.address }),
        text: reply.address.clone(),
    }
}

pub(super) fn hub_balance(balance: &HubBalanceReply) -> Shown {
    let json = json!({
        "onchain_confirmed_sat": balance.onchain_confirmed_sat,
        "onchain_pending_sat": balance.onchain_pending_sat,
        "lightning_msat": balance.lightning_msat,
        "closing_sat": balance.closing_sat,
    });
    let text = lines(&[
        ("on chain", format!("{} sat", balance.onchain_confirmed_sat)),
        (
            "not confirmed",
            format!("{} sat", balance.onchain_pending_sat),
        ),
        ("lightning", format!("{} msat", balance.lightning_msat)),
        ("closing", format!("{} sat", balance.closing_sat)),
    ]);
    Shown { json, text }
}

pub(super) fn hub_opened(reply: &HubOpenChannelReply) -> Shown {
    let channel_id = hex(&reply.channel_id);
    let json = json!({ "channel_id": channel_id, "funding_outpoint": reply.funding_outpoint });
    let text = lines(&[
        ("channel", channel_id),
        ("funding", reply.funding_outpoint.clone()),
    ]);
    Shown { json, text }
}

pub(super) fn hub_invoice(reply: &HubInvoiceReply) -> Shown {
    Shown {
        json: json!({ "bolt11": reply.bolt11 }),
        text: reply.bolt11.clone(),
    }
}

pub(super) fn hub_paid(reply: &HubPayReply) -> Shown {
    let (payment_hash, preimage) = (hex(&reply.payment_hash), hex(&reply.preimage));
    let json = json!({
        "payment_hash": payment_hash,
        "preimage": preimage,
        "fee_msat": reply.fee_msat,
    });
    let fee = format!("{} msat", reply.fee_msat);
    let text = lines(&[("paid", payment_hash), ("preimage", preimage), ("fee", fee)]);
    Shown { json, text }
}

pub(super) fn hub_channels(reply: &HubChannelsReply) -> Shown {
    let json = reply.channels.iter().map(|channel| {
        json!({
            "channel_id": hex(&channel.channel_id),
            "counterparty_node_id": hex(&channel.counterparty_node_id),
            "funding_outpoint": channel.funding_outpoint,
            "capacity_sat": channel.capacity_sat,
            "balance_msat": channel.balance_msat,
            "ready": channel.ready,
            "usable": channel.usable,
            "announced": channel.announced,
            "pending_htlcs": channel.pending_htlcs,
        })
    });
    let rows = reply.channels.iter().map(|channel| {
        let state = match (channel.ready, channel.usable) {
            (_, true) => "usable",
            (true, false) => "peer away",
            (false, false) => "not ready",
        };
        vec![
            state.to_owned(),
            channel.capacity_sat.to_string(),
            channel.balance_msat.to_string(),
            hex(&channel.counterparty_node_id),
            hex(&channel.channel_id),
        ]
    });
    Shown {
        json: json!({ "channels": json.collect::<Vec<_>>() }),
        text: table(
            &["state", "capacity sat", "balance msat", "peer", "channel"],
            rows.collect(),
        ),
    }
}

pub(super) fn hub_sends(reply: &HubSendsReply) -> Shown {
    let json = reply.sends.iter().map(|send| {
        json!({
            "txid": send.txid,
            "address": send.address,
            "amount_sat": send.amount_sat,
            "fee_sat": send.fee_sat,
            "state": send.state,
            "created_unix_s": send.created_unix_s,
            "replaced_txids": send.replaced_txids,
            "problem": send.problem,
        })
    });
    let rows = reply.sends.iter().map(|send| {
        vec![
            send.created_unix_s.to_string(),
            send.state.clone(),
            send.amount_sat.to_string(),
            send.fee_sat.to_string(),
            send.address.clone(),
            send.txid.clone(),
            send.problem.clone(),
        ]
    });
    let head = [
        "unix s",
        "state",
        "amount sat",
        "fee sat",
        "address",
        "transaction",
        "problem",
    ];
    Shown {
        text: table(&head, rows.collect()),
        json: json!({ "sends": json.collect::<Vec<_>>() }),
    }
}

pub(super) fn hub_sent(sent: &HubSendReply) -> Shown {
    let json = json!({ "txid": sent.txid, "fee_sat": sent.fee_sat });
    let text = lines(&[
        ("transaction", sent.txid.clone()),
        ("fee", format!("{} sat", sent.fee_sat)),
    ]);
    Shown { json, text }
}

pub(super) fn hub_fees(fees: &HubFeesReply) -> Shown {
    let json = json!({
        "base_msat": fees.base_msat,
        "proportional_millionths": fees.proportional_millionths,
    });
    let proportional = format!("{} millionths of the amount", fees.proportional_millionths);
    let text = lines(&[
        ("base fee", format!("{} msat", fees.base_msat)),
        ("proportional fee", proportional),
    ]);
    Shown { json, text }
}

pub(super) fn hub_payments(reply: &HubPaymentsReply) -> Shown {
    let json = reply.payments.iter().map(|payment| {
        json!({
            "payment_hash": hex(&payment.payment_hash),
            "outbound": payment.outbound,
            "amount_msat": payment.amount_msat,
            "fee_msat": payment.fee_msat,
            "state": payment.state,
            "created_unix_s": payment.created_unix_s,
            "failure": payment.failure,
        })
    });
    let rows = reply.payments.iter().map(|payment| {
        let direction = match payment.outbound {
            true => "sent",
            false => "received",
        };
        vec![
            payment.created_unix_s.to_string(),
            direction.to_owned(),
            payment.state.clone(),
            payment.amount_msat.to_string(),
            payment.fee_msat.to_string(),
            hex(&payment.payment_hash),
            payment.failure.clone(),
        ]
    });
    let head = [
        "unix s",
        "direction",
        "state",
        "amount msat",
        "fee msat",
        "payment hash",
        "failure",
    ];
    let mut text = table(&head, rows.collect());
    if reply.has_more {
        text.push_str("there are older ones: see --limit\n");
    }
    Shown {
        json: json!({ "payments": json.collect::<Vec<_>>(), "has_more": reply.has_more }),
        text,
    }
}

pub(super) fn hub_forwards(reply: &HubForwardsReply) -> Shown {
    let json = reply.forwards.iter().map(|forward| {
        json!({
            "unix_s": forward.unix_s,
            "from_channel_id": hex(&forward.from_channel_id),
            "from_node_id": hex(&forward.from_node_id),
            "to_channel_id": hex(&forward.to_channel_id),
            "to_node_id": hex(&forward.to_node_id),
            "amount_msat": forward.amount_msat,
            "fee_msat": forward.fee_msat,
            "claimed_on_chain": forward.claimed_on_chain,
        })
    });
    let rows = reply.forwards.iter().map(|forward| {
        let fee = forward.fee_msat.map(|fee| fee.to_string());
        vec![
            forward.unix_s.to_string(),
            forward.amount_msat.to_string(),
            fee.unwrap_or_else(|| "not known".to_owned()),
            hex(&forward.from_node_id),
            hex(&forward.to_node_id),
        ]
    });
    let head = ["unix s", "amount msat", "fee msat", "from", "to"];
    let mut text = table(&head, rows.collect());
    text.push_str(&format!(
        "{} in all: {} msat sent on, {} msat earned\n",
        reply.count, reply.amount_msat, reply.fee_msat
    ));
    Shown {
        json: json!({
            "count": reply.count,
            "amount_msat": reply.amount_msat,
            "fee_msat": reply.fee_msat,
            "forwards": json.collect::<Vec<_>>(),
        }),
        text,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

/// One name and value a line, the values below each other.
fn lines(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {value}\n"))
        .collect()
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec!["ann".into(), "away".into()],
            vec!["bartholomew".into(), "é".into()],
        ];
        let expected = "owner        phone\nann          away\nbartholomew  é\n";
        assert_eq!(table(&["owner", "phone"], rows), expected);
    }

    #[test]
    fn wake_urls_are_shown_by_who_gave_them() {
        let shown = wake_urls(&SetWakeUrlReply {
            wake_url: String::new(),
            phone_wake_urls: vec!["https://a.example/".into(), "https://b.example/".into()],
        });
        let expected =
            "the operator's  none\nthe phone's     https://a.example/ https://b.example/\n";
        assert_eq!(shown.text, expected);
    }

    #[test]
    fn values_that_are_not_known_yet_are_shown_as_such() {
        let status = status(&StatusReply {
            peer_address: "127.0.0.1:9735".into(),
            ..Default::default()
        });
        assert!(status.text.contains("does not run yet"));
        assert!(status.text.contains("cannot be reached now"));
    }
}
