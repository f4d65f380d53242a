//! A devnet, a host, a mailbox and phones, each a process of the `longhand` binary, which a program starts, asks, kills and starts
//! again.
//!
//! `process` is any of them, and sees to it that none outlives the program; `chain`, `host`, `mailbox` and `phone` know how each
//! is started and asked; `world` is all of them together. `longhand demo` and `longhand-sim processes` are made of them.

mod chain;
mod host;
mod mailbox;
mod phone;
mod process;
mod world;

use tokio::signal::unix::{SignalKind, signal};

pub use chain::ChainProcess;
pub use host::{HostProcess, HostSettings};
pub use mailbox::MailboxProcess;
pub use phone::{PASSPHRASE, PhoneClient, PhoneProcess};
pub use process::{Launcher, Process, Restartable, Start, end_with_parent};
pub use world::World;

/// Returns when this program is asked to exit, by Ctrl-C or otherwise.
pub async fn asked_to_stop() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let mut signals: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(any).await;
}
