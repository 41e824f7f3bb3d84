// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers for people: three significant digits and a unit, and separators of thousands.

/// The units of times, each with its nanoseconds, up to which number of it it is used.
const TIMES: [(&str, f64, f64); 6] = [
    ("ns", 1.0, 1e3),
    ("us", 1e3, 1e3),
    ("ms", 1e6, 1e3),
    ("s", 1e9, 600.0),
    ("m", 60e9, 600.0),
    ("h", 3_600e9, f64::INFINITY),
];

/// The units of sizes, by powers of a thousand.
const SIZES: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// Returns a time: `3.11 ms`.
pub fn time(ns: u64) -> String {
    with_unit(ns, " ")
}

/// Returns a time without a space, for columns: `3.11ms`.
pub fn short_time(ns: u64) -> String {
    with_unit(ns, "")
}

/// Returns a time, with this between the number and the unit.
fn with_unit(ns: u64, space: &str) -> String {
    let mut unit = TIMES[0];
    let mut digits = String::new();
    for candidate in TIMES {
        unit = candidate;
        let (_, size, limit) = unit;
        digits = significant(ns as f64 / size);
        /* Rounding may have brought it to the next unit. */
        let rounded: f64 = digits.parse().unwrap_or(f64::INFINITY);
        if rounded < limit {
            break;
        }
    }
    if unit.1 == 1.0 {
        digits = ns.to_string();
    }
    format!("{digits}{space}{}", unit.0)
}

/// Returns a size: `14.2 kB`.
pub fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in SIZES {
        let digits = if unit == "B" {
            bytes.to_string()
        } else {
            significant(number)
        };
        let rounded: f64 = digits.parse().unwrap_or(f64::INFINITY);
        if rounded < 1e3 || unit == "TB" {
            return format!("{digits} {unit}");
        }
        number /= 1e3;
    }
    String::new()
}

/// Returns a number with three significant digits.
pub fn significant(number: f64) -> String {
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// Returns a count with separators: `55,260`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with the word for it, which takes an `s` where there is not one.
pub fn counted(number: u64, word: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {word}{end}", count(number))
}

/// Returns a rate in events a second: `1,842` or `0.12`.
pub fn rate(number: u64, seconds: f64) -> String {
    let rate = number as f64 / seconds;
    match () {
        () if !rate.is_finite() => "-".to_owned(),
        () if number > 0 && rate < 0.005 => "<0.01".to_owned(),
        () if rate < 99.95 => significant(rate),
        () => count(rate.round() as u64),
    }
}

/// Returns a share in percent: `79 %`, `0.2 %`; what is more than nothing never looks like nothing, and what is less
/// than all not like all.
pub fn percent(part: u128, whole: u128) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match () {
        () if part == 0 => "0 %".to_owned(),
        () if percent < 0.1 => "<0.1 %".to_owned(),
        () if percent < 9.95 => format!("{percent:.1} %"),
        () if percent >= 99.5 && part < whole => ">99 %".to_owned(),
        () => format!("{percent:.0} %"),
    }
}

/// Divides 100 % among parts in whole numbers, so that they add up to 100 (the largest remainders are rounded up).
/// All are 0 where there is nothing.
pub fn percents(parts: &[u128]) -> Vec<u32> {
    crate::bar::apportion(parts, 100)
}

#[cfg(test)]
mod tests {
    use super::count;
    use super::percent;
    use super::percents;
    use super::rate;
    use super::short_time;
    use super::size;
    use super::time;

    /// Check times of all sizes.
    #[test]
    fn times() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (3_114_000, "3.11 ms"),
            (41_000_000, "41.0 ms"),
            (5_020_000_000, "5.02 s"),
            (599_400_000_000, "599 s"),
            (600_000_000_000, "10.0 m"),
            (36_000_000_000_000, "10.0 h"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(short_time(5_020_000_000), "5.02s");
        assert!(time(u64::MAX).ends_with(" h"));
    }

    /// Check the other numbers.
    #[test]
    fn others() {
        assert_eq!(count(55_260), "55,260");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(rate(55_260, 30.0), "1,842");
        assert_eq!(rate(1, 30.0), "0.03");
        assert_eq!(rate(1, 0.0), "-");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(14_200), "14.2 kB");
        assert_eq!(size(999_999), "1.00 MB");
        for (part, text) in [
            (0, "0 %"),
            (1, "<0.1 %"),
            (20, "0.2 %"),
            (7_900, "79 %"),
            (9_999, ">99 %"),
            (10_000, "100 %"),
        ] {
            assert_eq!(percent(part, 10_000), text);
        }
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percents(&[1, 1, 1]), [34, 33, 33]);
        assert_eq!(percents(&[0, 0]), [0, 0]);
    }
}
