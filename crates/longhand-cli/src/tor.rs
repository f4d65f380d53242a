//! Tor in this program, when it is built with the feature `tor`: the process of a host (`longhand tor`), and what a phone dials
//! through.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use longhand_proto::Code;
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
            eprintln!("{}", code_of(&error).line(error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "tor")]
fn code_of(error: &longhand_tor::process::ProcessError) -> Code {
    use longhand_tor::process::ProcessError;
    match error {
        ProcessError::Line(_) => Code::TorProtocol,
        ProcessError::Io(_) => Code::TorHostLost,
        ProcessError::NoSetup => Code::TorByHand,
        // Arti's, and what a later version adds.
        _ => Code::Tor,
    }
}

/// Explains itself.
#[cfg(not(feature = "tor"))]
pub async fn run() -> ExitCode {
    eprintln!("{}", Code::NoTor.line(NOT_BUILT_IN));
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

#[cfg(test)]
mod tests {
    #[cfg(feature = "tor")]
    #[tokio::test]
    async fn a_tor_process_that_ends_names_why_by_a_code() {
        use longhand_tor::control::{Secret, Setup, to_line};
        use longhand_tor::process::run;

        use super::*;

        let setup = to_line(&Setup {
            directory: "/no/such/directory".into(),
            network_file: Some("/no/such/file".into()),
            secret: Secret::from_bytes([1; 32]),
            arrivals: ([127, 0, 0, 1], 1).into(),
        });
        for (orders, code) in [
            (&b""[..], Code::TorByHand),
            (b"no order\n", Code::TorProtocol),
            (b"the host was killed in the middle", Code::TorHostLost),
            (&setup, Code::Tor),
        ] {
            let ended = run(orders, tokio::io::sink()).await.unwrap_err();
            assert_eq!(code_of(&ended), code, "{ended}");
        }
    }
}
