// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of groups: one row for each location, or whatever requests are grouped by.

use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::GroupKey;
use ngx_bpf_record::statistics::Statistics;

use crate::bar::bar;
use crate::cell;
use crate::look::Look;
use crate::units;

/// The columns of the numbers: requests, time, p50, p99, max.
const COLUMNS: [usize; 5] = [10, 8, 9, 9, 9];

/// The columns besides the name, with the bar and the share that failed.
const NUMBERS: usize = 63;

/// The least columns of a name.
const NAME_MIN: usize = 10;

/// The cells of a bar.
const BAR: u32 = 10;

/// Returns the table, the rows with the most time first, this number of them at most. Empty when all requests are of one
/// location.
pub fn table(statistics: &Statistics, most: usize, look: Look) -> String {
    let rows = statistics.groups_by_time();
    let is_asked = statistics.settings().group != GroupKey::Location;
    if rows.len() < 2 && !is_asked {
        return String::new();
    }
    /* One more is no shorter than a row for the rest. */
    let shown = if rows.len() <= most.saturating_add(1) {
        rows.len()
    } else {
        most
    };
    let mut rest = statistics.groups.other().cloned().unwrap_or_default();
    /* How many groups found no room in the statistics is not known. */
    let is_countless = rest.requests > 0;
    let left_out = rows.len().saturating_sub(shown);
    rows.iter()
        .skip(shown)
        .for_each(|(_, group)| rest.merge(group));
    let key = statistics.settings().group.to_string();
    let head = ["requests", "time", "p50", "p99", "max"];
    let mut text = "\n".to_owned() + &line(&key, head, "where", "failed", look);
    let whole = statistics.all.elapsed.sum_ns();
    for (name, group) in rows.iter().take(shown) {
        text += &row(name, group, whole, look);
    }
    if is_countless {
        text += &row("other", &rest, whole, look);
    } else if left_out > 0 {
        text += &row(&format!("other ({left_out})"), &rest, whole, look);
    }
    text
}

/// Returns the row of a group.
fn row(name: &str, group: &Group, whole: u128, look: Look) -> String {
    let at = |share| {
        let ns = group.elapsed.quantile(share);
        ns.map(units::short_time).unwrap_or_default()
    };
    let numbers = [
        units::count(group.requests),
        units::percent(group.elapsed.sum_ns(), whole),
        at(0.5),
        at(0.99),
        at(1.0),
    ];
    let failed = match group.failed {
        0 => String::new(),
        failed => units::percent(failed.into(), group.requests.into()),
    };
    let numbers = numbers.each_ref().map(String::as_str);
    line(name, numbers, &bar(group.shares, BAR, look), &failed, look)
}

/// Returns a row. The bar may contain colours. On a narrow screen there are only the first numbers, as many as have room.
fn line(name: &str, numbers: [&str; 5], bar: &str, failed: &str, look: Look) -> String {
    let is_narrow = look.width < NUMBERS + NAME_MIN;
    let mut rest = match is_narrow {
        true => look.width,
        false => look.width + COLUMNS.iter().sum::<usize>() - NUMBERS,
    };
    let mut text = String::new();
    for (number, columns) in numbers.into_iter().zip(COLUMNS) {
        if rest < NAME_MIN + columns {
            break;
        }
        rest -= columns;
        text += &cell::right(number, columns, look);
    }
    let text = cell::left(name, rest, look) + &text;
    if is_narrow {
        return text.trim_end().to_owned() + "\n";
    }
    let is_head = bar.is_ascii() && bar.len() < BAR as usize;
    let bar = if is_head {
        cell::left(bar, BAR as usize, look)
    } else {
        bar.to_owned()
    };
    format!("{text} {bar} {}", cell::right(failed, 6, look))
        .trim_end()
        .to_owned()
        + "\n"
}
