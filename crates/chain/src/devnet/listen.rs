//! An HTTP server of a devnet.

use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How long a request that is under way may take when the server is stopped.
const LONGEST_REQUEST: Duration = Duration::from_secs(5);

/// Serves until `stopped`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    what: &'static str,
) {
    let mut over = stopped.clone();
    let until = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    // Connections without a request end at once, and give up the devnet's files with that.
    let serving = axum::serve(listener, router).with_graceful_shutdown(until);
    let late = async move {
        let _ = over.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(LONGEST_REQUEST).await;
    };
    tokio::select! {
        biased;
        result = serving.into_future() => if let Err(error) = result {
            tracing::error!(%error, "devnet's {what} server ended");
        },
        () = late => tracing::warn!("devnet's {what} server ended with a request under way"),
    }
}
