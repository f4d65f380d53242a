//! The kinds of sources by which a devnet is reached, for the tests that every source has to pass.

use std::sync::Arc;

use bitcoin::Network;
use longhand_chain::{
    BitcoindSource, ChainError, ChainSource, Devnet, DevnetConfig, EsploraClient, EsploraSource,
};

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Rpc,
    Esplora,
}

impl Kind {
    /// A devnet that this kind reaches.
    pub async fn devnet(self) -> Devnet {
        Devnet::start(DevnetConfig {
            esplora_bind: Some(([127, 0, 0, 1], 0).into()),
            ..DevnetConfig::default()
        })
        .await
        .unwrap()
    }

    /// A source that reaches a devnet, for a host of `network`.
    pub fn source_for(self, devnet: &Devnet, network: Network) -> ChainSource {
        match self {
            Kind::Rpc => {
                let source = BitcoindSource::new(devnet.rpc_url(), devnet.rpc_auth(), network);
                Arc::new(source).into()
            }
            Kind::Esplora => {
                let client = client(&devnet.esplora_url().unwrap(), network);
                Arc::new(EsploraSource::new(client)).into()
            }
        }
    }

    pub fn source(self, devnet: &Devnet) -> ChainSource {
        self.source_for(devnet, Network::Regtest)
    }
}

/// A client of an Esplora server.
pub fn client(url: &str, network: Network) -> EsploraClient {
    EsploraClient::new(url.parse().unwrap(), network, None).unwrap()
}

/// Whether an answer is that the source is not there.
pub fn is_unreachable<T>(answer: Result<T, ChainError>) -> bool {
    matches!(answer, Err(ChainError::Unreachable { .. }))
}

/// Runs tests over each kind of source.
macro_rules! over_each_kind {
    ($($name:ident,)*) => {
        mod over_rpc {
            $(#[tokio::test] async fn $name() { super::$name(crate::kinds::Kind::Rpc).await })*
        }
        mod over_esplora {
            $(#[tokio::test] async fn $name() { super::$name(crate::kinds::Kind::Esplora).await })*
        }
    };
}
pub(crate) use over_each_kind;
