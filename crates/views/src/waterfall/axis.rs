// SPDX-License-Identifier: MIT OR Apache-2.0
//! The axis of time.

/// The units of its labels, each with its nanoseconds, and the end from which on it is used.
const UNITS: [(&str, u64, u64); 6] = [
    ("h", 3_600_000_000_000, 36_000_000_000_000),
    ("m", 60_000_000_000, 600_000_000_000),
    ("s", 1_000_000_000, 1_000_000_000),
    ("ms", 1_000_000, 1_000_000),
    ("us", 1_000, 1_000),
    ("ns", 1, 0),
];

/// Returns the marks of an axis that ends at this moment: each with its moment and label. There are `most` at most, and
/// the first is 0.
pub fn marks(end: u64, most: usize) -> Vec<(u64, String)> {
    let unit = UNITS.into_iter().find(|(.., least)| end >= *least);
    let (unit, ns, _) = unit.unwrap_or(UNITS[5]);
    /* Hours and minutes have no decimals. */
    let decimal = if ns > 1_000_000_000 { ns } else { 1 };
    let step = step(end, most, decimal);
    let label = |at: u64| match at {
        0 => "0".to_owned(),
        at => format!("{}{unit}", at as f64 / ns as f64),
    };
    let mut marks = Vec::new();
    let mut at = 0_u64;
    while at < end && marks.len() < most.max(1) {
        marks.push((at, label(at)));
        at = at.saturating_add(step);
    }
    marks
}

/// Returns the least step of 1, 2 or 5 times this, or ten times, a hundred times this, of which an axis has at most so
/// many.
fn step(end: u64, most: usize, mut decimal: u64) -> u64 {
    let least = end / most.max(1) as u64;
    loop {
        for digit in [1, 2, 5] {
            let step = decimal.saturating_mul(digit);
            if step > least {
                return step;
            }
        }
        let Some(next) = decimal.checked_mul(10) else {
            return u64::MAX;
        };
        decimal = next;
    }
}

/// Returns the cells from and to which a bar goes on an axis of `columns` cells: one at least, none beyond the end.
pub fn cells(from: u64, to: u64, end: u64, columns: usize) -> (usize, usize) {
    let exact = |at: u64| at as f64 * columns as f64 / end.max(1) as f64;
    let from = (exact(from) as usize).min(columns.saturating_sub(1));
    let to = (exact(to).round() as usize).clamp(from + 1, columns.max(from + 1));
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::cells;
    use super::marks;

    /// Returns the labels of an axis.
    fn labels(end: u64, most: usize) -> String {
        let marks: Vec<String> = marks(end, most).into_iter().map(|(_, text)| text).collect();
        marks.join(" ")
    }

    /// Check the labels of axes.
    #[test]
    fn labelled() {
        assert_eq!(labels(1_930_000_000, 4), "0 0.5s 1s 1.5s");
        assert_eq!(labels(301_779_854, 4), "0 100ms 200ms 300ms");
        assert_eq!(labels(74_000, 4), "0 20us 40us 60us");
        assert_eq!(labels(2_000_000_000, 5), "0 0.5s 1s 1.5s");
        assert_eq!(labels(3_000_000_000_000, 5), "0 20m 40m");
        assert_eq!(labels(360_000_000_000_000, 5), "0 50h");
        assert_eq!(labels(1, 4), "0");
        assert_eq!(labels(0, 4), "");
        assert_eq!(labels(u64::MAX, 1), "0");
    }

    /// Check that a bar has one cell at least, and keeps to the axis.
    #[test]
    fn bars() {
        assert_eq!(cells(0, 0, 100, 10), (0, 1));
        assert_eq!(cells(0, 50, 100, 10), (0, 5));
        assert_eq!(cells(99, 100, 100, 10), (9, 10));
        assert_eq!(cells(100, 500, 100, 10), (9, 10));
        assert_eq!(cells(0, 1, 0, 10), (0, 10));
        assert_eq!(cells(0, u64::MAX, u64::MAX, 1), (0, 1));
    }
}
