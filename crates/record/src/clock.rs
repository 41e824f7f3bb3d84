// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moments of the wall clock, as records have them.

use std::time::Duration;

use jiff::Timestamp;

/// Returns the time from 1970 to a moment in the form of records: `2026-11-26T20:04:11.183529112Z`. `None` when the text
/// is no moment, or one before 1970.
pub fn since_epoch(time: &str) -> Option<Duration> {
    let time: Timestamp = time.parse().ok()?;
    Duration::try_from(time.as_duration()).ok()
}

/// Returns the same in nanoseconds. `None` after the year 2554, too.
pub fn unix_ns(time: &str) -> Option<u64> {
    u64::try_from(since_epoch(time)?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::since_epoch;
    use super::unix_ns;

    /// Check moments against `date`, and texts that are none.
    #[test]
    fn moments() {
        for (text, seconds, ns) in [
            ("1970-01-01T00:00:00.000000000Z", 0, 0),
            ("2026-11-27T06:48:18.004662308Z", 1_795_762_098, 4_662_308),
            ("2024-02-29T23:59:59.9Z", 1_709_251_199, 900_000_000),
            ("2000-03-01T00:00:00Z", 951_868_800, 0),
            ("2100-03-01T00:00:00Z", 4_107_542_400, 0),
        ] {
            let known = Duration::new(seconds, ns);
            assert_eq!(since_epoch(text), Some(known), "{text}");
            assert_eq!(unix_ns(text).map(u128::from), Some(known.as_nanos()));
        }
        for wrong in [
            "",
            "Z",
            "2026-11-27",
            "2026-11-27T06:48:18",
            "2026-13-27T06:48:18Z",
            "1969-12-31T23:59:59Z",
            "2026-11-27T06:48:18.xZ",
            "2026-11-27T06:48:é8Z",
        ] {
            assert_eq!(since_epoch(wrong), None, "{wrong}");
        }
        let far = "9999-12-30T00:00:00Z";
        assert!(since_epoch(far).is_some() && unix_ns(far).is_none());
    }
}
