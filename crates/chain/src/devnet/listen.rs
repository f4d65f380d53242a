//! An HTTP server of a devnet.

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Serves until `stopped`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    what: &'static str,
) {
    let until = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    // Open connections are not waited for: clients keep them for long.
    let serving = axum::serve(listener, router).into_future();
    tokio::select! {
        biased;
        () = until => {}
        result = serving => if let Err(error) = result {
            tracing::error!(%error, "devnet's {what} server ended");
        },
    }
}
