//! Times in caveats (RFC 3339), such as `2026-11-29T19:31:01.123456789Z`.

const DAY_S: i64 = 86_400;
/// Days from March 1 of year 0 to 1970, and of 400 years, after which the Gregorian calendar repeats.
const DAYS_BEFORE_1970: i64 = 719_468;
const CYCLE_DAYS: i64 = 146_097;

/// A point in time.
pub(super) struct Time {
    pub unix_s: u64,
    has_fraction: bool,
}

impl Time {
    /// Whether the second that the clock shows is before it.
    pub fn is_after(&self, now_unix_s: u64) -> bool {
        now_unix_s < self.unix_s || (now_unix_s == self.unix_s && self.has_fraction)
    }

    /// `None` when it is none, or before 1970.
    pub fn parse(text: &str) -> Option<Time> {
        let (date, time) = (text.get(..10)?, text.get(11..)?);
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
            return None;
        }
        let days = days(date)?;
        let (clock, rest) = (time.get(..8)?, time.get(8..)?);
        let [hour, minute, second] = numbers(clock, ':')?;
        // A leap second is the first of the next minute.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let digits = |it: &str| it.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest
                .split_at_checked(digits(rest))
                .filter(|(it, _)| !it.is_empty())?,
            None => ("", rest),
        };
        let seconds = days * DAY_S + hour * 3_600 + minute * 60 + second - offset_s(zone)?;
        Some(Time {
            unix_s: u64::try_from(seconds).ok()?,
            has_fraction: fraction.bytes().any(|digit| digit != b'0'),
        })
    }
}

/// Days since 1970.
fn days(date: &str) -> Option<i64> {
    let (year, rest) = (date.get(..4)?, date.get(5..)?);
    if date.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let year = number(year)?;
    let [month, day] = numbers(rest, '-')?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years are counted from March, so that a leap day is the last day of one.
    let (year, from_march) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_cycle = of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + day_of_year;
    Some(cycle * CYCLE_DAYS + day_of_cycle - DAYS_BEFORE_1970)
}

/// `Z`, or such as `+02:00`, in seconds.
fn offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(zone.get(1..)?, ':')?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Numbers of two digits.
fn numbers<const N: usize>(text: &str, between: char) -> Option<[i64; N]> {
    let parts = text.split(between);
    let all = parts.map(|part| number(part).filter(|_| part.len() == 2));
    let all: Option<Vec<i64>> = all.collect();
    all?.try_into().ok()
}

fn number(digits: &str) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// As text, without a fraction. Years above 9999, which the format does not have, become its last second.
pub(super) fn rfc3339(unix_s: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    let unix_s = unix_s.min(LAST);
    let days = unix_s / 86_400 + DAYS_BEFORE_1970 as u64;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next) = match from_march {
        0..=9 => (from_march + 3, 0),
        _ => (from_march - 9, 1),
    };
    let year = cycle * 400 + year + next;
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
