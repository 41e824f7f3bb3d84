// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moments of the wall clock, as records have them.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Returns the time from 1970 to a moment in the form of records: `2026-11-26T20:04:11.183529112Z`. `None` when the text
/// is no moment, or one before 1970.
pub fn since_epoch(time: &str) -> Option<Duration> {
    let time: Timestamp = time.parse().ok()?;
    Duration::try_from(time.as_duration()).ok()
}

/// Returns the time of day of a time from 1970, in this format of strftime. Empty where that is too far away to have one.
pub fn time_of_day(since_epoch: Duration, zone: &TimeZone, format: &str) -> String {
    let time = SignedDuration::try_from(since_epoch).and_then(Timestamp::from_duration);
    let time = time.map(|time| time.to_zoned(zone.clone()));
    let time = time.map(|time| time.strftime(format).to_string());
    time.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;
    use jiff::tz::offset;

    use super::since_epoch;
    use super::time_of_day;

    /// Check times of day here and elsewhere.
    #[test]
    fn times_of_day() {
        let at = Duration::from_secs(1_795_762_098);
        assert_eq!(time_of_day(at, &TimeZone::UTC, "%H:%M:%S"), "06:48:18");
        assert_eq!(
            time_of_day(at, &TimeZone::fixed(offset(2)), "%H:%M:%S.%3f"),
            "08:48:18.000"
        );
        assert_eq!(time_of_day(Duration::MAX, &TimeZone::UTC, "%H:%M"), "");
    }

    /// Check moments against `date`, and texts that are none.
    #[test]
    fn moments() {
        for (text, seconds, ns) in [
            ("1970-01-01T00:00:00.000000000Z", 0, 0),
            ("2026-11-27T06:48:18.004662308Z", 1_795_762_098, 4_662_308),
            ("2024-02-29T23:59:59.9Z", 1_709_251_199, 900_000_000),
            ("2000-03-01T00:00:00Z", 951_868_800, 0),
        ] {
            let known = Some(Duration::new(seconds, ns));
            assert_eq!(since_epoch(text), known, "{text}");
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
    }
}
