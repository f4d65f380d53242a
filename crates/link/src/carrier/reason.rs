//! Reasons for which a connection could not be made, for a person.

use std::error::Error;

use longhand_proto::utc;

use crate::clock::now_unix_s;

/// The innermost reason, which is the one a person can act on.
pub(super) fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    with_remedy(innermost.to_string())
}

/// Adds what to do about a certificate where its text does not say so.
fn with_remedy(reason: String) -> String {
    let says = |text: &str| reason.contains(text);
    // A certificate is valid for a span of time: when that is the reason, it may be this machine's clock that is wrong.
    if says("certificate expired") || says("certificate not valid yet") {
        let now = utc(now_unix_s());
        return format!("{reason}; this machine's clock shows {now}: set it if it is wrong");
    }
    if says("CaUsedAsEndEntity") {
        return "its certificate is one of an authority (CA:TRUE), as `openssl req -x509` makes them: the operator makes one with -addext basicConstraints=critical,CA:FALSE".into();
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_about_certificates_say_what_to_do() {
        let told = |reason: &str| with_remedy(reason.to_owned());
        assert!(told("invalid peer certificate: certificate expired: since").contains("clock"));
        assert!(
            told("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))")
                .contains("CA:FALSE")
        );
        assert_eq!(told("connection refused"), "connection refused");
    }
}
