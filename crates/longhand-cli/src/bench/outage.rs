//! The time until a call is answered again after a minute without network, over Lightning Node Connect: of the phones, and of the
//! host. A [`Forwarder`] stands for the network: while it is gone, nothing is forwarded, and the connections of before never carry
//! anything again, as when a phone has got another address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhand_link::{Connect, DialOptions};
use longhand_phone::Phone;
use longhand_testkit::KitError;
use longhand_testkit::forwarder::Forwarder;
use longhand_testkit::host::World;
use tokio::net::TcpStream;

use super::{say, temporary_directory};

/// The time without network.
pub const OUTAGE: Duration = Duration::from_secs(60);
/// Before the outage, so that the links are at rest.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two calls of an owner, after one that failed.
const BETWEEN_CALLS: Duration = Duration::from_millis(50);
/// The time after which a phone counts as lost.
const LOST: Duration = Duration::from_secs(120);

/// Milliseconds from the end of an outage to the answer of a call.
pub struct Recovery {
    /// Of a phone whose platform reports networks, as those of phones and `longhand phone run` do.
    pub told_ms: f64,
    /// Of a phone that has to find out itself.
    pub untold_ms: f64,
    /// Of the latter, when it was the host that had no network.
    pub of_host_ms: f64,
}

/// All connections of a phone go there.
struct Through(SocketAddr);

#[async_trait::async_trait]
impl Connect for Through {
    async fn connect(&self, _: &str, _: u16) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }
}

/// Host and phones meet at the hashmail of this mailbox, each over a network of its own.
pub async fn measure(mailbox: SocketAddr) -> Result<Recovery, KitError> {
    let of_host = Forwarder::start(mailbox, Duration::ZERO).await?;
    let of_phones = Forwarder::start(mailbox, Duration::ZERO).await?;
    let at = format!("lnc+grpc://{}", of_host.address());
    let world = World::with(temporary_directory()?, |config| {
        config.link.mailboxes = vec![at];
    })
    .await?;
    let options = || DialOptions {
        schemes: Some(vec!["lnc+grpc".into()]),
        connect: Some(Arc::new(Through(of_phones.address()))),
        ..DialOptions::default()
    };
    let told = world.phone_with("told", options()).await?;
    let untold = world.phone_with("untold", options()).await?;
    told.network_changed(Some("wifi"));
    answered(&told).await?;
    tokio::time::sleep(SETTLED).await;

    say("a minute without network, of the phones");
    of_phones.silence();
    told.network_changed(None);
    tokio::time::sleep(OUTAGE).await;
    of_phones.end_silence();
    told.network_changed(Some("wifi"));
    let (told_ms, untold_ms) = tokio::try_join!(answered(&told), answered(&untold))?;
    tokio::time::sleep(SETTLED).await;

    say("a minute without network, of the host");
    of_host.silence();
    tokio::time::sleep(OUTAGE).await;
    of_host.end_silence();
    let of_host_ms = answered(&untold).await?;
    for phone in [&told, &untold] {
        phone.detach().await?;
    }
    world.stop().await?;
    Ok(Recovery {
        told_ms,
        untold_ms,
        of_host_ms,
    })
}

/// The time until the phone's owner is answered, who asks again when that fails.
async fn answered(phone: &Phone) -> Result<f64, KitError> {
    let since = Instant::now();
    let asking = async {
        while phone.info().await.is_err() {
            tokio::time::sleep(BETWEEN_CALLS).await;
        }
    };
    let lost = |_| KitError::Unexpected(format!("the phone does not come back within {LOST:?}"));
    tokio::time::timeout(LOST, asking).await.map_err(lost)?;
    let ms = since.elapsed().as_secs_f64() * 1e3;
    say(&format!("answered after {ms:.0} ms"));
    Ok(ms)
}
