//! The fuzz targets. `fuzz/` gives them to libFuzzer; `tests/corpus.rs` replays the inputs that are kept, with no more
//! than `cargo test`.
//!
//! A target takes any bytes and panics when a promise is broken. Those that need more than one message read a *script*, a
//! protobuf message of steps, and [`mutate`] changes scripts as such: the result can be decoded again, so that the
//! targets are tried with well-formed nonsense rather than with input that the first check refuses.
//!
//! | target | input from others | beyond "no panic" |
//! |---|---|---|
//! | `link_handshake` | first records of both sides, answers, refusals | a record that was changed on the way never ends in a session |
//! | `link_session` | frames and records, both sides, over several connections | all that is sent can be decoded; a
//! request is executed once, answered once; bounds hold |
//! | `mailbox` | clients' requests, at a mailbox | a stream needs its key; messages keep their order; bounds hold;
//! nothing is left when all are gone |
//! | `hashmail` | requests to a mailbox of Lightning Node Connect, as protobuf and JSON | messages keep their order; bounds hold;
//! nothing is left when all are gone |
//! | `go_back_n` | packets of Lightning Node Connect, lost, repeated, changed and invented | messages come once and in order while nothing
//! was changed |
//! | `lnc_handshake` | the same with a handshake and encryption above | no message comes but those that were sent, once and in order |
//! | `websocket` | frames after the handshake, at either side | a record is no larger than it may be, and none comes after the end |
//! | `pairing_code` | a code as text, and the addresses in it | reading, printing and reading is the identity |
//! | `owner_input` | invoices, addresses and peers that an owner is given | an accepted input is parsed as BOLT 11 and
//! Bitcoin do; an error is one line |
//! | `signer_batch` | signer batches, at any point of a recorded run | `longhand_signer::audit`: no state is signed or given away that the ledger forbids |
//! | `signer_channel` | a hostile host and peer with the peer's keys | the same |
//! | `signer_ledger` | the signer's records | a snapshot has the state of the records |
//! | `phone_ledger` | `ledger` and `ledger.head` | nothing on record is lost without an error |
//! | `vault_files` | `seed.age` and `host`, changed, and written anew with the passphrase | no other host, no other words; too much work is refused |
//! | `signer_reply` | a hostile phone's answers to its node, in its first moments and in a whole life with its hub |
//! neither is reloaded |
//! | `command` | an owner's commands, at a node | every reply is an answer or an error; the node is not reloaded |
//! | `command_reply` | a hostile host's replies to an owner's commands, at the phone | an invoice is as requested, an
//! address the wallet's own, a payment proved; no text controls a terminal |
//! | `peer_socket` | a peer's bytes before and after the handshake | no byte but Act Two, or Act One where the node dials, before it is over; the node is not reloaded |
//! | `registration` | a phone's registration, and the node built on it | an accepted registration makes a node |
//! | `operator` | an operator's requests, at a host | a refused request changes nothing; a pairing code can be read; no node is reloaded |
//! | `lnd_rpc` | apps' macaroons, messages and paths, at lnd's RPC | nobody is let in without a macaroon of the node's key; only an
//! app with the right, and the phone there, changes anything; an error is one line |
//! | `chain_answer` | a broken Bitcoin Core's answers | an answer belongs to its question; a node's events are a valid
//! chain, and at last the source's |
//! | `esplora_answer` | a lying Esplora server's answers about a block | what is taken is that block's |
//! | `phone_chain` | proofs, solutions and filters of blocks, and a phone's files about them | what a proof shows is in its block |
//! | `devnet_rpc` | JSON-RPC bodies | every answer is JSON-RPC |
//! | `host_config` | a host's configuration file | printing and reading it again is the identity |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audited;
mod bolt8;
mod chain;
mod chain_answer;
mod channel;
mod command;
mod command_reply;
#[cfg(feature = "devnet")]
mod devnet_rpc;
mod esplora_answer;
mod hashmail;
#[cfg(feature = "host")]
mod host_config;
mod link_handshake;
mod link_session;
mod lnc;
#[cfg(feature = "host")]
mod lnd_rpc;
mod mailbox;
mod node;
#[cfg(feature = "host")]
mod operator;
mod owner_input;
mod pairing_code;
mod peer_socket;
mod phone_chain;
mod phone_ledger;
#[cfg(feature = "host")]
mod registration;
mod scratch;
mod secp;
mod signer_batch;
mod signer_channel;
mod signer_ledger;
mod signer_reply;
pub mod tape;
mod vault_files;
mod websocket;
mod wire;

pub use wire::mutate;

/// One fuzz target.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
    /// The first inputs of its corpus, made of real messages.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All that are built with the features of this crate.
pub const TARGETS: &[Target] = &[
    Target {
        name: "link_handshake",
        run: run::link_handshake,
        seeds: link_handshake::seeds,
    },
    Target {
        name: "link_session",
        run: run::link_session,
        seeds: link_session::seeds,
    },
    Target {
        name: "mailbox",
        run: run::mailbox,
        seeds: mailbox::seeds,
    },
    Target {
        name: "hashmail",
        run: run::hashmail,
        seeds: hashmail::seeds,
    },
    Target {
        name: "go_back_n",
        run: run::go_back_n,
        seeds: lnc::seeds,
    },
    Target {
        name: "lnc_handshake",
        run: run::lnc_handshake,
        seeds: lnc::seeds,
    },
    Target {
        name: "websocket",
        run: run::websocket,
        seeds: websocket::seeds,
    },
    Target {
        name: "owner_input",
        run: run::owner_input,
        seeds: owner_input::seeds,
    },
    Target {
        name: "pairing_code",
        run: run::pairing_code,
        seeds: pairing_code::seeds,
    },
    Target {
        name: "signer_batch",
        run: run::signer_batch,
        seeds: signer_batch::seeds,
    },
    Target {
        name: "signer_channel",
        run: run::signer_channel,
        seeds: signer_channel::seeds,
    },
    Target {
        name: "signer_ledger",
        run: run::signer_ledger,
        seeds: signer_ledger::seeds,
    },
    Target {
        name: "phone_ledger",
        run: run::phone_ledger,
        seeds: phone_ledger::seeds,
    },
    Target {
        name: "vault_files",
        run: run::vault_files,
        seeds: vault_files::seeds,
    },
    Target {
        name: "signer_reply",
        run: run::signer_reply,
        seeds: signer_reply::seeds,
    },
    Target {
        name: "command",
        run: run::command,
        seeds: command::seeds,
    },
    Target {
        name: "command_reply",
        run: run::command_reply,
        seeds: command_reply::seeds,
    },
    Target {
        name: "peer_socket",
        run: run::peer_socket,
        seeds: peer_socket::seeds,
    },
    Target {
        name: "chain_answer",
        run: run::chain_answer,
        seeds: chain_answer::seeds,
    },
    Target {
        name: "esplora_answer",
        run: run::esplora_answer,
        seeds: esplora_answer::seeds,
    },
    Target {
        name: "phone_chain",
        run: run::phone_chain,
        seeds: phone_chain::seeds,
    },
    #[cfg(feature = "host")]
    Target {
        name: "registration",
        run: run::registration,
        seeds: registration::seeds,
    },
    #[cfg(feature = "host")]
    Target {
        name: "operator",
        run: run::operator,
        seeds: operator::seeds,
    },
    #[cfg(feature = "host")]
    Target {
        name: "lnd_rpc",
        run: run::lnd_rpc,
        seeds: lnd_rpc::seeds,
    },
    #[cfg(feature = "host")]
    Target {
        name: "host_config",
        run: run::host_config,
        seeds: host_config::seeds,
    },
    #[cfg(feature = "devnet")]
    Target {
        name: "devnet_rpc",
        run: run::devnet_rpc,
        seeds: devnet_rpc::seeds,
    },
];

/// The targets one by one, for programs that link only one.
pub mod run {
    pub use crate::chain_answer::run as chain_answer;
    pub use crate::command::run as command;
    pub use crate::command_reply::run as command_reply;
    #[cfg(feature = "devnet")]
    pub use crate::devnet_rpc::run as devnet_rpc;
    pub use crate::esplora_answer::run as esplora_answer;
    pub use crate::hashmail::run as hashmail;
    #[cfg(feature = "host")]
    pub use crate::host_config::run as host_config;
    pub use crate::link_handshake::run as link_handshake;
    pub use crate::link_session::run as link_session;
    pub use crate::lnc::go_back_n;
    pub use crate::lnc::handshake as lnc_handshake;
    #[cfg(feature = "host")]
    pub use crate::lnd_rpc::run as lnd_rpc;
    pub use crate::mailbox::run as mailbox;
    #[cfg(feature = "host")]
    pub use crate::operator::run as operator;
    pub use crate::owner_input::run as owner_input;
    pub use crate::pairing_code::run as pairing_code;
    pub use crate::peer_socket::run as peer_socket;
    pub use crate::phone_chain::run as phone_chain;
    pub use crate::phone_ledger::run as phone_ledger;
    #[cfg(feature = "host")]
    pub use crate::registration::run as registration;
    pub use crate::signer_batch::run as signer_batch;
    pub use crate::signer_channel::run as signer_channel;
    pub use crate::signer_ledger::run as signer_ledger;
    pub use crate::signer_reply::run as signer_reply;
    pub use crate::vault_files::run as vault_files;
    pub use crate::websocket::run as websocket;
}
