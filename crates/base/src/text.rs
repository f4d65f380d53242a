//! Text from others (a peer, a phone, a host, a chain source), before it is logged, shown or stored.

/// The longest foreign text in an error, a log line or a record, in characters.
pub const EXCERPT_CHARS: usize = 200;

/// The text without characters that steer a terminal or break a line: control characters become spaces, and those that
/// change the direction of text (Unicode, UAX 9) are left out.
pub fn plain(text: &str) -> String {
    plain_chars(text).collect()
}

/// [`plain`], cut to [`EXCERPT_CHARS`].
pub fn excerpt(text: &str) -> String {
    plain_chars(text).take(EXCERPT_CHARS).collect()
}

fn plain_chars(text: &str) -> impl Iterator<Item = char> {
    let turns = |c: &char| {
        let marks = ['\u{061c}', '\u{200e}', '\u{200f}'];
        marks.contains(c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let kept = text.chars().filter(move |c| !turns(c));
    // The line and paragraph separators are no control characters, and break a line too.
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    kept.map(move |c| if breaks(c) { ' ' } else { c })
}

/// The end of names that only Tor resolves.
const ONION: &str = ".onion";

/// Whether a host name is below `.onion`, which name servers are never asked for (RFC 7686).
pub fn is_onion(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.len() > ONION.len()
        && host
            .get(host.len() - ONION.len()..)
            .is_some_and(|end| end.eq_ignore_ascii_case(ONION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_would_steer_a_terminal_is_harmless() {
        let text = "one\u{1b}[2J\r\ntwo\u{9b}2J\u{202e}eerht\u{2028}four";
        assert_eq!(plain(text), "one [2J  two 2Jeerht four");
    }

    #[test]
    fn other_text_stays_as_it_is() {
        let text = "a payment of 5 ₿ — “thanks”, ありがとう";
        assert_eq!(plain(text), text);
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        let long = "é".repeat(EXCERPT_CHARS + 1);
        assert_eq!(excerpt(&long), "é".repeat(EXCERPT_CHARS));
    }

    #[test]
    fn names_below_onion_are_recognised_in_any_spelling() {
        for name in ["a.onion", "A.ONION", "a.onion.", "a.onion..", "x.a.Onion"] {
            assert!(is_onion(name), "{name}");
        }
        for name in ["onion", ".onion", "a.onion.example", "aonion", "ä", ""] {
            assert!(!is_onion(name), "{name}");
        }
    }
}
