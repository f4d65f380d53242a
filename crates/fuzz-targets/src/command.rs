//! An owner's commands, at a node with its phone or without.

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::*;
use prost::Message;
use tokio::time::timeout;

use crate::node::{self, PATIENCE};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(message, repeated, tag = "1")]
    commands: Vec<Command>,
    #[prost(bool, tag = "2")]
    without_phone: bool,
}

const COMMANDS: usize = 8;

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    if script.commands.is_empty() {
        return;
    }
    node::run(|| async {
        let node = node::owner(node::registration()).await;
        let node = node.expect("a node starts");
        if !script.without_phone {
            node::attach(&node);
        }
        for command in script.commands.into_iter().take(COMMANDS) {
            // Some wait for an event that never happens.
            if let Ok(reply) = timeout(PATIENCE, node.command(command.clone())).await {
                check(&command, &reply);
            }
        }
        node::is_sound(&node).await;
        node.stop().await;
    });
}

fn check(command: &Command, reply: &CommandReply) {
    let reply = reply.reply.as_ref().expect("a reply has a body");
    let Reply::Error(error) = reply else {
        assert!(command.command.is_some());
        return;
    };
    let is_code = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    assert!(!error.code.is_empty() && error.code.chars().all(is_code));
    assert!(!error.message.is_empty() && !error.message.contains('\n'));
    assert!(error.action() != error::Action::Unspecified, "{error:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let id = || (1..=16).collect::<Vec<u8>>();
    let hash = || vec![0xab; 32];
    let peer = || {
        let generator = bitcoin::secp256k1::constants::GENERATOR_X;
        [&[3][..], &generator].concat()
    };
    // BOLT 11's first example, which is of another network, and one of a regtest.
    let invoice = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
    let all = [
        Kind::GetInfo(GetInfo {}),
        Kind::GetBalance(GetBalance {}),
        Kind::ListChannels(ListChannels {}),
        Kind::ListPayments(ListPayments::default()),
        Kind::NewAddress(NewAddress {}),
        Kind::Register(node::registration()),
        Kind::OpenChannel(OpenChannel {
            id: id(),
            counterparty_node_id: peer(),
            address: "127.0.0.1:9735".into(),
            amount_sat: 1_000_000,
            announced: true,
            push_msat: 0,
            feerate_sat_per_kw: 0,
        }),
        Kind::CreateInvoice(CreateInvoice {
            payment_hash: hash(),
            amount_msat: 50_000_000,
            description: "coffee".into(),
            expiry_s: 3600,
            payment_secret: vec![7; 32],
        }),
        Kind::Pay(Pay {
            bolt11: invoice.into(),
            amount_msat: 1_000_000,
            max_fee_msat: Some(1_000),
        }),
        Kind::SendOnchain(SendOnchain {
            id: id(),
            address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".into(),
            amount_sat: 10_000,
            all: false,
            feerate_sat_per_kw: 253,
        }),
        Kind::CloseChannel(CloseChannel {
            channel_id: hash(),
            force: true,
            ..CloseChannel::default()
        }),
        Kind::ConnectPeer(ConnectPeer {
            node_id: peer(),
            address: "127.0.0.1:9735".into(),
        }),
        Kind::AwaitPayment(AwaitPayment {
            payment_hash: hash(),
        }),
        Kind::AwaitChannel(AwaitChannel { id: id() }),
        Kind::GetPayment(GetPayment {
            payment_hash: hash(),
        }),
        Kind::ListInvoices(ListInvoices {}),
        Kind::ListSends(ListSends {}),
        Kind::BumpTransaction(BumpTransaction {
            txid: "ab".repeat(32),
            feerate_sat_per_kw: 1_000,
        }),
        Kind::AbandonTransaction(AbandonTransaction {
            txid: "ab".repeat(32),
            feerate_sat_per_kw: 0,
        }),
        Kind::ListPayments(ListPayments {
            limit: 1,
            before: vec![1; 40],
        }),
        Kind::SetWakeUrls(SetWakeUrls {
            urls: vec!["https://push.example/ann".into()],
        }),
        Kind::ListWakeUrls(ListWakeUrls {}),
    ];
    let command = |kind: &Kind| Command {
        command: Some(kind.clone()),
    };
    let mut scripts: Vec<Script> = Vec::new();
    for kind in &all {
        scripts.push(Script {
            commands: vec![command(kind)],
            without_phone: false,
        });
    }
    for (commands, without_phone) in [(&all[..7], false), (&all[7..], false), (&all[5..9], true)] {
        scripts.push(Script {
            commands: commands.iter().map(command).collect(),
            without_phone,
        });
    }
    scripts.iter().map(Message::encode_to_vec).collect()
}
