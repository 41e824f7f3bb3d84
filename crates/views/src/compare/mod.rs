// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two summaries side by side: what moved, and whether it is more than chance.
//!
//! The method is that of resampling. If both files were drawn from the same requests, a percentile of a sample of n
//! requests would be that of all of them at a rank that varies by sqrt(p (1 - p) / n): drawing ranks is the same as
//! drawing all n requests again, and needs no requests. So pairs of samples are drawn from both files together, of the
//! sizes that the files have, and a difference counts as more than chance when it is larger than those of 99 in 100
//! pairs. Requests of one client, or of one moment, are alike, so that this may call a difference more than chance that
//! is not: the files should be long, and of the same kind of time.

use ngx_bpf_record::read::Unread;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::timeline::Stage;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cell;
use crate::compare::chance::Numbers;
use crate::compare::chance::is_beyond;
use crate::look::Look;
use crate::summary::numbers::window;
use crate::units;
use crate::words;

mod chance;

/// The requests that must lie beyond a percentile, or have failed: of fewer, the place of one is chance.
const BEYOND_MIN: f64 = 5.0;

/// The groups that one screen has room for.
const GROUPS: usize = 8;

/// The columns of a name, of a number, and of the mark.
const NAME: usize = 24;
const NUMBER: usize = 11;
const MARK: usize = 5;

/// The columns of a number on a narrow screen.
const NARROW: usize = 7;

/// From how many per cent on a change has no decimals, and is not said exactly.
const ROUND: f64 = 100.0;
const PERCENT_MAX: f64 = 9_999.0;

/// The least columns of a file's name.
const FILE_MIN: usize = 8;

/// What the mark means.
const LEGEND: &str = "larger than in 99 of 100 pairs of samples of both files together; no mark where fewer than 5 \
    requests lie beyond a percentile";

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub struct Side<'s> {
    /// The file.
    pub name: &'s str,
    /// Its statistics.
    pub statistics: &'s Statistics,
    /// What could not be read of it.
    pub unread: Unread,
}

impl Side<'_> {
    /// Returns the number of requests that were lost, for whatever cause.
    fn lost(&self) -> u64 {
        self.statistics.lost().saturating_add(self.unread.lost)
    }
}

/// What changed.
#[derive(Debug, JsonSchema, Serialize)]
pub struct Comparison {
    /// The file before.
    pub before: String,
    /// The file after.
    pub after: String,
    /// The number of requests in each, then of the lines of each that could not be read.
    pub requests: [u64; 2],
    /// Lines and records that could not be read completely.
    pub unread: [u64; 2],
    /// Requests that were lost.
    pub lost: [u64; 2],
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<[f64; 2]>,
    /// Percentiles of `elapsed_ns`, by name.
    pub elapsed_ns: Vec<Change>,
    /// The share of requests that failed.
    pub failed: Change,
    /// The mean time of a request in each stage, in ns, the largest change first.
    pub stages: Vec<Change>,
    /// The 99th percentile of each group, the largest first.
    pub groups: Vec<Change>,
}

/// A number in both files.
#[derive(Clone, Debug, JsonSchema, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// Its value before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<f64>,
    /// Its value after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<f64>,
    /// Whether the difference is more than chance. Absent where that was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_than_chance: Option<bool>,
}

impl Comparison {
    /// Compares two files.
    pub fn of(before: &Side<'_>, after: &Side<'_>) -> Self {
        let sides = [before.statistics, after.statistics];
        let mut numbers = Numbers::new();
        let rates = sides.map(|side| {
            let seconds = window(side)?;
            Some(side.all.requests as f64 / seconds)
        });
        let rates = match rates {
            [Some(before), Some(after)] => Some([before, after]),
            _ => None,
        };
        let times = sides.map(|side| &side.all.elapsed);
        let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
        Self {
            before: before.name.to_owned(),
            after: after.name.to_owned(),
            requests: sides.map(|side| side.all.requests),
            unread: [before, after].map(|side| side.unread.lines + side.unread.partly),
            lost: [before.lost(), after.lost()],
            requests_per_second: rates,
            elapsed_ns: shares
                .into_iter()
                .map(|(name, share)| quantiles(name, times, share, &mut numbers))
                .collect(),
            failed: failures(sides.map(|side| &side.all), &mut numbers),
            stages: stages(sides),
            groups: groups(sides, &mut numbers),
        }
    }

    /// Returns the line of a file. Its name gives way to what was lost.
    fn head(&self, name: &str, place: usize, look: Look) -> String {
        let requests = units::counted(self.requests[place], "request");
        let mut line = format!(": {requests}; lost {}", units::count(self.lost[place]));
        if self.unread[place] > 0 {
            let unread = units::count(self.unread[place]);
            line += &format!(", not read completely {unread}");
        }
        let rest = look.width.saturating_sub(cell::width(&line, look));
        let name = cell::at_most(name, rest.max(FILE_MIN), look);
        cell::at_most(&(name + &line), look.width, look) + "\n"
    }

    /// Returns the screen.
    pub fn terminal(&self, all: bool, look: Look) -> String {
        let mut text = String::new();
        for (name, place) in [(&self.before, 0), (&self.after, 1)] {
            text += &self.head(name, place, look);
        }
        text += "\n";
        text += &row("", ["before", "after", "change"], "", look);
        if let Some([before, after]) = self.requests_per_second {
            let change = Change {
                name: "requests/s".to_owned(),
                before: Some(before),
                after: Some(after),
                more_than_chance: None,
            };
            text += &change.row(&change.name, units::significant, look);
        }
        let time = |ns: f64| units::time(ns.round() as u64);
        for change in &self.elapsed_ns {
            text += &change.row(&change.name, time, look);
        }
        let failed = &self.failed;
        text += &failed.row(&failed.name, |share| format!("{share:.2} %"), look);
        if !self.stages.is_empty() {
            text += "\nwhat moved, mean time of a request\n";
        }
        for change in &self.stages {
            let stage = Stage::ALL
                .into_iter()
                .find(|stage| stage.name() == change.name);
            let name = stage.map_or(change.name.as_str(), |stage| words::title(stage));
            text += &change.row(name, time, look);
        }
        if !self.groups.is_empty() {
            text += "\np99 by group\n";
            let most = if all { usize::MAX } else { GROUPS };
            for change in self.groups.iter().take(most) {
                text += &change.row(&change.name, time, look);
            }
        }
        text += "\n";
        text + &cell::paragraph("*** ", LEGEND, look)
    }
}

impl Change {
    /// Returns the change in per cent. `None` where there was nothing, or is nothing now.
    fn percent(&self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        (before > 0.0).then(|| (after - before) * 100.0 / before)
    }

    /// Returns its row, with this name.
    fn row(&self, name: &str, show: impl Fn(f64) -> String, look: Look) -> String {
        let number = |number: Option<f64>| number.map_or("-".to_owned(), &show);
        let change = self.percent().map(|percent| match percent {
            percent if percent > PERCENT_MAX => format!(">{PERCENT_MAX} %"),
            percent if percent >= ROUND => format!("{percent:+.0} %"),
            percent => format!("{percent:+.1} %"),
        });
        let mark = match self.more_than_chance {
            Some(true) => "***",
            _ => "",
        };
        let numbers = [
            number(self.before),
            number(self.after),
            change.unwrap_or_default(),
        ];
        row(name, numbers.each_ref().map(String::as_str), mark, look)
    }
}

/// Returns a row. On a narrow screen the name gives way to the numbers.
fn row(name: &str, numbers: [&str; 3], mark: &str, look: Look) -> String {
    let is_narrow = look.width < NAME + 3 * NUMBER + MARK;
    let of_number = if is_narrow { NARROW } else { NUMBER };
    let of_name = look.width.saturating_sub(3 * of_number + MARK);
    let mut line = cell::left(name, of_name.min(NAME), look);
    for number in numbers {
        let number = match is_narrow {
            true => number.replace(' ', ""),
            false => number.to_owned(),
        };
        line += &cell::right(&number, of_number, look);
    }
    line += &format!("  {mark}");
    cell::at_most(line.trim_end(), look.width, look) + "\n"
}

/// Compares a percentile.
fn quantiles(name: &str, times: [&Times; 2], share: f64, numbers: &mut Numbers) -> Change {
    let values = times.map(|times| times.quantile(share).map(|ns| ns as f64));
    let has_enough = |times: &Times| times.count() as f64 * share.min(1.0 - share) >= BEYOND_MIN;
    let is_more = match values {
        [Some(before), Some(after)] if times.into_iter().all(has_enough) => {
            let mut pool = times[0].clone();
            pool.merge(times[1]);
            let draw = |numbers: &mut Numbers, count: u64| {
                let deviation = (share * (1.0 - share) / count as f64).sqrt();
                let rank = (share + numbers.normal() * deviation).clamp(0.0, 1.0);
                pool.quantile(rank).unwrap_or_default() as f64
            };
            let counts = times.map(Times::count);
            Some(is_beyond(after - before, || {
                draw(numbers, counts[0]) - draw(numbers, counts[1])
            }))
        }
        _ => None,
    };
    Change {
        name: name.to_owned(),
        before: values[0],
        after: values[1],
        more_than_chance: is_more,
    }
}

/// Compares the share of requests that failed.
fn failures(groups: [&Group; 2], numbers: &mut Numbers) -> Change {
    let share = |failed: u64, requests: u64| failed as f64 / requests as f64;
    let values =
        groups.map(|group| (group.requests > 0).then(|| share(group.failed, group.requests)));
    let has_enough = |group: &Group| {
        let least = group.failed.min(group.requests - group.failed);
        least as f64 >= BEYOND_MIN
    };
    let is_more = match values {
        [Some(before), Some(after)] if groups.into_iter().any(has_enough) => {
            let [failed, requests] = [
                groups.map(|group| group.failed).iter().sum(),
                groups.map(|group| group.requests).iter().sum(),
            ];
            let both = share(failed, requests);
            let counts = groups.map(|group| group.requests as f64);
            let draw = |numbers: &mut Numbers, count: f64| {
                both + numbers.normal() * (both * (1.0 - both) / count).sqrt()
            };
            Some(is_beyond(after - before, || {
                draw(numbers, counts[0]) - draw(numbers, counts[1])
            }))
        }
        _ => None,
    };
    let [before, after] = values.map(|value| value.map(|share| share * 100.0));
    Change {
        name: "failed".to_owned(),
        before,
        after,
        more_than_chance: is_more,
    }
}

/// Compares the mean times of the stages. Those that are in neither are left out.
fn stages(sides: [&Statistics; 2]) -> Vec<Change> {
    let mean = |side: &Statistics, stage: Stage| {
        let sum = side.stages[stage as usize].sum_ns();
        (side.with_stages > 0).then(|| sum as f64 / side.with_stages as f64)
    };
    let changes = Stage::ALL.into_iter().map(|stage| Change {
        name: stage.name().to_owned(),
        before: mean(sides[0], stage),
        after: mean(sides[1], stage),
        more_than_chance: None,
    });
    let is_there = |change: &Change| {
        let mut values = [change.before, change.after].into_iter().flatten();
        values.any(|ns| ns > 0.0)
    };
    let mut changes: Vec<_> = changes.filter(is_there).collect();
    let moved = |change: &Change| {
        (change.after.unwrap_or_default() - change.before.unwrap_or_default()).abs()
    };
    changes.sort_by(|a, b| moved(b).total_cmp(&moved(a)));
    changes
}

/// Compares the groups that are in both.
fn groups(sides: [&Statistics; 2], numbers: &mut Numbers) -> Vec<Change> {
    let mut changes: Vec<_> = sides[0]
        .groups
        .named()
        .filter_map(|(name, before)| {
            let after = sides[1].groups.get(name)?;
            let times = [&before.elapsed, &after.elapsed];
            Some(quantiles(name, times, 0.99, numbers))
        })
        .collect();
    changes.sort_by(|a, b| {
        let value = |change: &Change| change.before.unwrap_or_default();
        value(b).total_cmp(&value(a)).then(a.name.cmp(&b.name))
    });
    changes
}

#[cfg(test)]
mod tests;
