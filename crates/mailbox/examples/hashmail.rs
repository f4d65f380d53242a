//! A mailbox for Lightning Node Connect alone, for `scripts/hashmail-interop`: settings are arguments, such as
//! `hashmail.listen=grpc://127.0.0.1:0`. Its addresses go to standard output when it listens.

use std::process::ExitCode;

use longhand_link::Carriers;
use longhand_mailbox::{Mailbox, MailboxConfig, MailboxError, Settings as _};

#[tokio::main]
async fn main() -> ExitCode {
    match start().await {
        Ok(mailbox) => {
            for address in mailbox.hashmail_addresses() {
                println!("{address}");
            }
            std::future::pending::<()>().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn start() -> Result<Mailbox, MailboxError> {
    let alone = ["link.listen=grpc://127.0.0.1:0", "metrics.listen="].map(str::to_owned);
    let settings = alone.into_iter().chain(std::env::args().skip(1));
    let settings = settings.map(|it| match it.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (it, String::new()),
    });
    let config = MailboxConfig::load(None, [], settings)?;
    Mailbox::start(config, Carriers::default()).await
}
