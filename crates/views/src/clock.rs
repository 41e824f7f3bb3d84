// SPDX-License-Identifier: MIT OR Apache-2.0
//! Times of day.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;

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
}
