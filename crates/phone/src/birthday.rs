//! The birthday of restored words: the part of the chain that the host searches for their coins.

use crate::input::InputError;

/// From where on the words can have coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birthday {
    /// The words are new.
    New,
    /// From this block on.
    Height(u32),
    /// From this time on, in seconds since 1970. The host begins some blocks earlier.
    UnixS(u64),
}

/// The first day of Bitcoin, 2009-01-03, in days since 1970.
const FIRST_DAY: u64 = 14_247;
const DAY_S: u64 = 86_400;

impl Birthday {
    /// That of an owner's words: the height or the date that the owner knows, else the first block that can matter on the
    /// chain, which the host knows.
    ///
    /// # Errors
    /// [`InputError::DateMalformed`] for a date that is not `YYYY-MM-DD`, [`InputError::DateOutOfRange`] for one before
    /// Bitcoin or after `now_unix_s`.
    pub fn restored(
        height: Option<u32>,
        date: Option<&str>,
        now_unix_s: u64,
    ) -> Result<Birthday, InputError> {
        match (height, date) {
            // 0 would be a wallet that is new.
            (Some(height), _) => Ok(Birthday::Height(height.max(1))),
            (None, Some(date)) => Ok(Birthday::UnixS(unix_s(date, now_unix_s)?)),
            (None, None) => Ok(Birthday::Height(1)),
        }
    }
}

/// The beginning of a day (UTC), in seconds since 1970.
fn unix_s(date: &str, now_unix_s: u64) -> Result<u64, InputError> {
    let malformed = || InputError::DateMalformed;
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else {
        return Err(malformed());
    };
    let number = |text: &str, digits: usize| -> Result<u64, InputError> {
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse().ok()).flatten();
        number.ok_or_else(malformed)
    };
    let days = days(number(year, 4)?, number(month, 2)?, number(day, 2)?).ok_or_else(malformed)?;
    let unix_s = days.saturating_mul(DAY_S);
    match days < FIRST_DAY || unix_s > now_unix_s {
        true => Err(InputError::DateOutOfRange),
        false => Ok(unix_s),
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` when there is no such day.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let february = if is_leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *lengths.get(before)?;
    if day == 0 || day > length {
        return None;
    }
    let earlier = year.checked_sub(1)?;
    let leap_days = earlier / 4 - earlier / 100 + earlier / 400;
    let since_year_1 = earlier * 365 + leap_days;
    let in_year: u64 = lengths.iter().take(before).sum();
    (since_year_1 + in_year + day - 1).checked_sub(DAYS_BEFORE_1970)
}

/// From 0001-01-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_162;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::Code;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn of_date(date: &str) -> Result<Birthday, InputError> {
        Birthday::restored(None, Some(date), NOW)
    }

    #[test]
    fn a_date_is_the_beginning_of_its_day() {
        let unix_s = |date| of_date(date).unwrap();
        assert_eq!(unix_s("2009-01-03"), Birthday::UnixS(1_230_940_800));
        assert_eq!(unix_s("2017-08-24"), Birthday::UnixS(1_503_532_800));
        assert_eq!(unix_s("2024-02-29"), Birthday::UnixS(1_709_164_800));
        assert_eq!(unix_s("2024-12-31"), Birthday::UnixS(1_735_603_200));
    }

    #[test]
    fn a_date_that_is_none_is_refused() {
        for date in [
            "",
            "2024",
            "2024-1-1",
            "24-01-01",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-01-00",
            "2024-01-32",
            "2024-01-01T00",
            "+024-01-01",
            "2024-01-01-01",
        ] {
            assert_eq!(of_date(date), Err(InputError::DateMalformed), "{date}");
        }
    }

    #[test]
    fn a_date_before_bitcoin_or_in_the_future_is_refused() {
        for date in ["1969-12-31", "2009-01-02", "2027-01-16", "9999-12-31"] {
            let refused = of_date(date).unwrap_err();
            let codes = [Code::DateOutOfRange, Code::DateMalformed];
            assert!(codes.contains(&refused.code()), "{date}: {refused}");
        }
        assert_eq!(of_date("2009-01-02"), Err(InputError::DateOutOfRange));
        assert!(of_date("2027-01-15").is_ok());
    }

    #[test]
    fn words_without_a_birthday_are_searched_from_the_first_block() {
        let restored = |height| Birthday::restored(height, None, NOW).unwrap();
        assert_eq!(restored(None), Birthday::Height(1));
        assert_eq!(restored(Some(0)), Birthday::Height(1));
        assert_eq!(restored(Some(800_000)), Birthday::Height(800_000));
    }
}
