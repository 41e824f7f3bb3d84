// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx release, as its `nginx_version` counts it: 1022001 is 1.22.1.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

/// `major.minor.patch`, ordered as releases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// From the number that nginx's modules carry (`ngx_module_t.version`).
    pub fn from_number(nginx_version: u64) -> Self {
        Self(nginx_version)
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

    /// Fails unless the text is three numbers below 1000 with dots between.
    fn from_str(text: &str) -> Result<Self> {
        let mut number = 0;
        let mut parts = text.split('.');
        for _ in 0..3 {
            let part: u16 = parts
                .next()
                .and_then(|part| part.parse().ok())
                .filter(|part| *part < 1000)
                .with_context(|| format!("\"{text}\" is no nginx version"))?;
            number = number * 1000 + u64::from(part);
        }
        ensure!(
            parts.next().is_none(),
            "\"{text}\" is no nginx version of three parts"
        );
        Ok(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    /// Check that a release reads and prints as nginx numbers it.
    #[test]
    fn release_number() {
        let version: Version = "1.22.1".parse().unwrap();
        assert_eq!(version, Version::from_number(1_022_001));
        assert_eq!(version.to_string(), "1.22.1");
    }

    /// Check that what is no release is refused.
    #[test]
    fn not_a_release() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.1000", "-1.2.3"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
