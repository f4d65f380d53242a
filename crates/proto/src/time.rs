//! Points in time as text for people.

const DAY_S: u64 = 86_400;
/// Days of 400 years, after which the Gregorian calendar repeats, and from March 1 of year 0 to 1970.
const CYCLE_DAYS: u64 = 146_097;
const DAYS_BEFORE_1970: u64 = 719_468;

/// A time in seconds since 1970 as `2026-11-28 18:04:05 UTC`. Any value has a text.
pub fn utc(unix_s: u64) -> String {
    let (year, month, day) = date(unix_s / DAY_S);
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day. Years are counted from March, so that a leap day is the last day of one.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970.saturating_add(DAYS_BEFORE_1970);
    let (cycle, day) = (days / CYCLE_DAYS, days % CYCLE_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Months of 31, 30, 31, 30, 31 days from March on, again and again: 153 days in five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let next = u64::from(month <= 2);
    (cycle * 400 + year + next, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_164_799, "2024-02-28 23:59:59 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_740_787_200, "2025-03-01 00:00:00 UTC"),
            (1_795_888_800, "2026-11-28 18:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (unix_s, text) in cases {
            assert_eq!(utc(unix_s), text);
        }
        assert!(utc(u64::MAX).ends_with(" UTC"));
    }
}
