//! Where an Esplora server is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use crate::source::without_credentials;

/// The base of a server's REST, such as `https://blockstream.info/api`. User and password in it are sent to the server and
/// not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct EsploraUrl {
    /// Without a slash at the end.
    base: String,
    host: String,
}

/// Why a text is no [`EsploraUrl`]. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: give the address of an Esplora server, such as https://blockstream.info/api")]
pub struct EsploraUrlError(&'static str);

impl EsploraUrl {
    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The server's address, if it is given as one. IPv6 stands in brackets in [`EsploraUrl::host`].
    pub fn ip(&self) -> Option<IpAddr> {
        self.host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .ok()
    }

    /// Whether what goes to the server is encrypted.
    pub fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// The URL of a path, which begins with a slash.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

impl FromStr for EsploraUrl {
    type Err = EsploraUrlError;

    fn from_str(text: &str) -> Result<EsploraUrl, EsploraUrlError> {
        let url = Url::parse(text).map_err(|_| EsploraUrlError("it is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EsploraUrlError(
                "it begins with neither https:// nor http://",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EsploraUrlError("it has more than a path"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(EsploraUrl { base, host })
    }
}

impl fmt::Display for EsploraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_credentials(&self.base))
    }
}

impl fmt::Debug for EsploraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_follows_the_base_whether_that_ends_with_a_slash_or_not() {
        for text in [
            "https://esplora.example/api",
            "https://esplora.example/api/",
        ] {
            let url: EsploraUrl = text.parse().unwrap();
            assert_eq!(url.at("/tx"), "https://esplora.example/api/tx");
            assert_eq!((url.host(), url.is_https()), ("esplora.example", true));
        }
        let url: EsploraUrl = "http://[::1]:3000".parse().unwrap();
        assert_eq!(url.at("/tx"), "http://[::1]:3000/tx");
        assert_eq!(url.ip(), Some("::1".parse().unwrap()));
    }

    #[test]
    fn a_password_is_sent_and_not_shown() {
        let url: EsploraUrl = "https://me:secret@esplora.example".parse().unwrap();
        assert!(url.at("/tx").contains("secret"));
        assert_eq!(format!("{url} {url:?}").matches("secret").count(), 0);
    }

    #[test]
    fn what_is_no_base_of_a_server_is_refused_in_one_line() {
        for text in [
            "",
            "esplora.example",
            "ftp://a",
            "https://a/?key=1",
            "https://a/#b",
        ] {
            let error = text.parse::<EsploraUrl>().unwrap_err().to_string();
            assert!(
                error.contains("Esplora server") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
