// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of an nginx release, as `nginx_version` encodes it: 1022001 is 1.22.1.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

/// A release, `major.minor.patch`. Newer releases are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// Takes the number that nginx's modules carry (`ngx_module_t.version`).
    pub fn from_number(nginx_version: u64) -> Self {
        Self(nginx_version)
    }

    /// Returns the release before this one in its branch. `None` when it is the first one.
    pub fn previous(self) -> Option<Self> {
        (!self.0.is_multiple_of(1000)).then(|| Self(self.0 - 1))
    }
}

impl From<(u64, u64, u64)> for Version {
    fn from((major, minor, patch): (u64, u64, u64)) -> Self {
        Self((major * 1000 + minor) * 1000 + patch)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(n) = self;
        write!(f, "{}.{}.{}", n / 1_000_000, n / 1000 % 1000, n % 1000)
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    /// Parses three numbers below 1000 that are separated by dots.
    ///
    /// # Errors
    ///
    /// Fails when the text is anything else.
    fn from_str(text: &str) -> Result<Self> {
        let mut number = 0;
        let mut parts = text.split('.');
        for _ in 0..3 {
            let part: u16 = parts
                .next()
                .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|part| part.parse().ok())
                .filter(|part| *part < 1000)
                .with_context(|| format!("\"{text}\" is not an nginx version"))?;
            number = number * 1000 + u64::from(part);
        }
        ensure!(
            parts.next().is_none(),
            "\"{text}\" is not an nginx version: it has more than three parts"
        );
        Ok(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Version;

    /// Check that a release reads and prints as nginx numbers it.
    #[test]
    fn release_number() {
        let version: Version = "1.22.1".parse().unwrap();
        assert_eq!(version, Version::from_number(1_022_001));
        assert_eq!(version.to_string(), "1.22.1");
    }

    proptest! {
        /// Check that a release that was printed is parsed as the same one, and ordered by its parts.
        #[test]
        fn round_trip(ours in (0..1000_u64, 0..1000_u64, 0..1000_u64), theirs in (0..1000_u64, 0..1000_u64, 0..1000_u64)) {
            let version = Version::from(ours);
            prop_assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
            prop_assert_eq!(version.cmp(&Version::from(theirs)), ours.cmp(&theirs));
        }

        /// Check that exactly the texts of three numbers below 1000 are parsed, and that they are printed alike
        /// but for zeros before a number.
        #[test]
        fn any_text(text in "[0-9]{0,4}(\\.[0-9]{1,4}){1,3}|[0-9.+x-]{0,12}") {
            let number = |part: &str| {
                let is_number = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
                let digits = part.trim_start_matches('0');
                let digits = if digits.is_empty() { "0" } else { digits };
                (is_number && digits.len() <= 3).then(|| digits.to_owned())
            };
            let numbers: Option<Vec<String>> = text.split('.').map(number).collect();
            let expected = numbers.filter(|numbers| numbers.len() == 3);
            let printed = text.parse::<Version>().ok().map(|version| version.to_string());
            prop_assert_eq!(printed, expected.map(|numbers| numbers.join(".")));
        }
    }

    /// Check that text that is not a release is refused.
    #[test]
    fn not_a_release() {
        for text in [
            "", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.1000", "-1.2.3", "+1.2.3",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
