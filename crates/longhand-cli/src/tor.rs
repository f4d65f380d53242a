//! Tor in this program, when it is built with the feature `tor`: the process of a host (`longhand tor`), and what a phone dials
//! through.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use longhand_tor::OnionDialer;

/// The environment variable with a phone's file of another Tor network than the public one.
pub const NETWORK_FILE: &str = "LONGHAND_TOR_NETWORK_FILE";

/// Whether this program has Tor.
pub const IS_BUILT_IN: bool = cfg!(feature = "tor");

/// For people whose program has none.
pub const NOT_BUILT_IN: &str = "this program was built without Tor: build it with `cargo build --release -p longhand-cli --features tor`";

/// Runs the Tor process of a host until its input ends.
#[cfg(feature = "tor")]
pub async fn run() -> ExitCode {
    use longhand_tor::process;
    match process::run(tokio::io::stdin(), tokio::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}

/// Explains itself.
#[cfg(not(feature = "tor"))]
pub async fn run() -> ExitCode {
    eprintln!("error[NO_TOR]: {NOT_BUILT_IN}");
    ExitCode::FAILURE
}

/// What a phone dials onion services through. Its files are in `directory`, which is made when it is first used; `network_file` is
/// for another network than the public one.
#[cfg(feature = "tor")]
pub fn dialer(directory: PathBuf, network_file: Option<PathBuf>) -> Arc<dyn OnionDialer> {
    Arc::new(longhand_tor::LazyTor::new(longhand_tor::TorConfig {
        directory,
        network_file,
        is_service: false,
    }))
}

/// One that explains itself.
#[cfg(not(feature = "tor"))]
pub fn dialer(_: PathBuf, _: Option<PathBuf>) -> Arc<dyn OnionDialer> {
    Arc::new(without::NoTor)
}

#[cfg(not(feature = "tor"))]
mod without {
    use async_trait::async_trait;
    use longhand_tor::{
        DialError, DiscoverySecret, OnionAddress, OnionDialer, OnionStream, Progress,
    };

    pub struct NoTor;

    #[async_trait]
    impl OnionDialer for NoTor {
        async fn connect(
            &self,
            _: &OnionAddress,
            _: u16,
            _: Option<&DiscoverySecret>,
        ) -> Result<Box<dyn OnionStream>, DialError> {
            Err(DialError::Never(super::NOT_BUILT_IN.into()))
        }

        fn progress(&self) -> Progress {
            Progress::none()
        }
    }
}
