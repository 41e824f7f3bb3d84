// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule is, and what rules have in common.

use std::fmt;

use ngx_bpf_record::statistics::Rows;
use ngx_bpf_record::statistics::Times;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::units::count;
use crate::units::counted;
use crate::units::percent;
use crate::units::time;

/// The least number of requests that a share of requests is about.
pub(super) const FEW: u64 = 20;

/// Where [`FEW`] is from.
pub(super) const FEW_FROM: &str = "of fewer, one request alone would be 5 %";

/// The least number of requests that a percentage of 1 % is about.
pub(super) const MANY: u64 = 100;

/// Where [`MANY`] is from.
pub(super) const MANY_FROM: &str = "of fewer, one alone would be more than 1 %";

/// The least share, in percent, that is worth a change.
pub(super) const SHARE: u64 = 1;

/// Where [`SHARE`] is from.
pub(super) const SHARE_FROM: &str = "what is rarer does not move the p99 of anything";

/// The least time that is worth a change when all requests have lost it together.
pub(super) const NOTICED_NS: u64 = 100_000_000;

/// Where [`NOTICED_NS`] is from.
pub(super) const NOTICED_FROM: &str = "a person notices a delay from a tenth of a second on";

/// A rule of `advise`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, which never changes.
    pub name: &'static str,
    /// What it looks at, in a few words.
    pub about: &'static str,
    /// What it finds, in one line.
    pub description: &'static str,
    /// What stands before its advice: `needs` for directives that end it, `look` for what to find out first.
    pub verb: &'static str,
    /// Below which it is silent.
    pub thresholds: &'static [Threshold],
    /// Its page of the documentation.
    pub page: &'static str,
    /// Returns its findings. `None` when there are too few records to look at.
    pub(super) find: fn(&Collected) -> Option<Vec<Finding>>,
}

impl Rule {
    /// Returns its findings. `None` when there are too few records to look at.
    pub(super) fn look(&self, collected: &Collected) -> Option<Vec<Finding>> {
        (self.find)(collected)
    }
}

/// A number that must be reached.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    /// The number.
    pub least: Least,
    /// What must be as many, or as much.
    pub what: &'static str,
    /// Why it is this number.
    pub from: &'static str,
}

/// The number of a threshold.
#[derive(Clone, Copy, Debug)]
pub enum Least {
    /// A count.
    Count(u64),
    /// A share in percent.
    Percent(u64),
    /// A time in ns.
    Time(u64),
    /// A ratio.
    Ratio(u64),
}

impl fmt::Display for Least {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => f.write_str(&count(*number)),
            Self::Percent(share) => write!(f, "{share} %"),
            Self::Time(ns) => f.write_str(&time(*ns)),
            Self::Ratio(ratio) => write!(f, "{ratio} times"),
        }
    }
}

/// Creates a threshold.
pub(super) const fn least(least: Least, what: &'static str, from: &'static str) -> Threshold {
    Threshold { least, what, from }
}

/// Returns the rows that have enough to look at. `None` when none has.
pub(super) fn enough<T>(rows: &Rows<T>, has_enough: impl Fn(&T) -> bool) -> Option<Vec<&T>>
where
    T: Clone + Default,
{
    let rows = rows.named().map(|(_, row)| row);
    let enough: Vec<&T> = rows.filter(|row| has_enough(row)).collect();
    (!enough.is_empty()).then_some(enough)
}

/// Returns the findings about the locations where something happened to [`FEW`] requests and to [`SHARE`] percent of
/// them. `finding` returns `None` where it is none for another reason. Returns `None` when there are too few requests to look at.
pub(super) fn in_locations(
    collected: &Collected,
    happened: impl Fn(&Location) -> u64,
    finding: impl Fn(&Location) -> Option<Finding>,
) -> Option<Vec<Finding>> {
    if collected.requests < FEW {
        return None;
    }
    let found = collected.locations.named().filter_map(|(_, location)| {
        let count = happened(location);
        let is_often = is_share(u128::from(count), u128::from(location.requests), SHARE);
        if count < FEW || !is_often {
            return None;
        }
        Some(Finding {
            subject: location.subject(),
            requests: Some(count),
            config: location.config.clone(),
            ..finding(location)?
        })
    });
    Some(found.collect())
}

/// Returns whether a part is at least this share, in percent, of the whole.
pub(super) fn is_share(part: u128, whole: u128, least: u64) -> bool {
    part.saturating_mul(100) >= whole.saturating_mul(u128::from(least))
}

/// Returns a part of a whole as a number and a share: `12 of 40 requests (30 %)`.
pub(super) fn part_of(part: u64, whole: u64, word: &str) -> String {
    let share = percent(u128::from(part), u128::from(whole));
    format!("{} of {} ({share})", count(part), counted(whole, word))
}

/// Returns a sum of times as that of a finding. `None` when nothing was measured.
pub(super) fn lost(ns: u128) -> Option<u64> {
    (ns > 0).then(|| u64::try_from(ns).unwrap_or(u64::MAX))
}

/// Returns how long it took for people: `p50 1.20 ms, p99 4.00 ms, max 5.10 ms`. Empty when nothing was measured.
pub(super) fn spread(times: &Times) -> String {
    let all = [
        ("p50", times.quantile(0.5)),
        ("p99", times.quantile(0.99)),
        ("max", times.max_ns()),
    ];
    let known = all
        .into_iter()
        .filter_map(|(name, ns)| Some(format!("{name} {}", time(ns?))));
    Vec::from_iter(known).join(", ")
}

/// Returns a sum of times for people.
pub(super) fn total(ns: u128) -> String {
    time(u64::try_from(ns).unwrap_or(u64::MAX))
}
