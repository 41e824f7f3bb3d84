// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moments of the wall clock, as records have them.

/// The digits of a record's time: `2026-11-26T20:04:11.183529112Z`.
const PATTERN: &[u8] = b"0000-00-00T00:00:00.000000000Z";

/// The nanoseconds of a second, and the seconds of a day.
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Returns the nanoseconds since 1970 of a record's time. `None` when it is not written as records have it.
pub fn nanoseconds(time: &str) -> Option<u64> {
    let is_as = |(c, pattern): (&u8, &u8)| match pattern {
        b'0' => c.is_ascii_digit(),
        other => c == other,
    };
    if time.len() != PATTERN.len() || !time.bytes().zip(PATTERN).all(|(c, p)| is_as((&c, p))) {
        return None;
    }
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let days = days(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let of_day = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    let seconds = days.checked_mul(DAY)?.checked_add(of_day)?;
    seconds.checked_mul(SECOND)?.checked_add(number(20, 29)?)
}

/// Returns the days from 1970 to a date. Years begin with March here, so that the day that may be missing is the last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    let of_months = (153 * month + 2) / 5;
    (of_years + of_months + day - 1).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    /// Check moments whose seconds are known, and texts that are none.
    #[test]
    fn read() {
        for (time, seconds) in [
            ("1970-01-01T00:00:00.000000000Z", 0),
            ("2000-02-29T12:00:00.000000000Z", 951_825_600),
            ("2026-11-26T20:04:11.000000000Z", 1_795_723_451),
        ] {
            assert_eq!(nanoseconds(time), Some(seconds * 1_000_000_000), "{time}");
        }
        let fraction = nanoseconds("1970-01-01T00:00:01.000000009Z");
        assert_eq!(fraction, Some(1_000_000_009));
        for wrong in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00.000000000Z",
            "1969-01-01T00:00:00.000000000Z",
            "+970-01-01T00:00:00.000000000Z",
            "9999-12-31T00:00:00.000000000Z",
        ] {
            assert_eq!(nanoseconds(wrong), None, "{wrong}");
        }
    }
}
