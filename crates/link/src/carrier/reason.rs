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
    with_clock(innermost.to_string())
}

/// A certificate is valid for a span of time: when that is the reason, it may be this machine's clock that is wrong.
fn with_clock(reason: String) -> String {
    let is_about_time = ["certificate expired", "certificate not valid yet"];
    match is_about_time.iter().any(|text| reason.contains(text)) {
        true => {
            let now = utc(now_unix_s());
            format!("{reason}; this machine's clock shows {now}: set it if it is wrong")
        }
        false => reason,
    }
}
