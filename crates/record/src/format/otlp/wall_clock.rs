// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time of a record as a number.

/// Returns the nanoseconds since 1970 of a time of a record: RFC 3339, UTC, nine decimals. `None` when it has another
/// form, or is before 1970 or after the year 2554.
pub(super) fn unix_ns(time: &str) -> Option<u64> {
    let bytes: &[u8; 30] = time.as_bytes().try_into().ok()?;
    let is_right = bytes.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        19 => *byte == b'.',
        29 => *byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    let number = |from: usize, to: usize| {
        let digits = bytes[from..to].iter();
        digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    };
    if !is_right {
        return None;
    }
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let days = days_since_1970(year, month, day)?;
    let (hours, minutes, seconds) = (number(11, 13), number(14, 16), number(17, 19));
    let seconds = days * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(number(20, 29))
}

/// Returns the days from 1970 to a date of the Gregorian calendar. Years begin in March here, so that the day of a
/// leap year is the last one.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const TO_1970: u64 = 719_468;
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year / 4 - year / 100 + year / 400;
    (year * 365 + leaps + of_year).checked_sub(TO_1970)
}

#[cfg(test)]
mod tests {
    use super::unix_ns;

    /// Check dates that `date -u +%s` has printed, and texts that are no times.
    #[test]
    fn times() {
        for (time, seconds) in [
            ("1970-01-01T00:00:00", 0),
            ("2000-02-29T23:59:59", 951_868_799),
            ("2023-11-14T22:13:20", 1_700_000_000),
            ("2024-02-29T00:00:00", 1_709_164_800),
            ("2024-03-01T00:00:00", 1_709_251_200),
            ("2026-12-31T12:00:00", 1_798_718_400),
            ("2100-03-01T00:00:00", 4_107_542_400),
        ] {
            let ns = unix_ns(&format!("{time}.000000007Z"));
            assert_eq!(ns, Some(seconds * 1_000_000_000 + 7), "{time}");
        }
        for time in [
            "",
            "2026-11-22T17:17:57.972980760",
            "2026-11-22T17:17:57.97298076Z0",
            "2026-13-22T17:17:57.972980760Z",
            "1969-12-31T23:59:59.000000000Z",
            "9999-12-31T23:59:59.000000000Z",
        ] {
            assert_eq!(unix_ns(time), None, "{time}");
        }
    }
}
