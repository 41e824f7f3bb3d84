// SPDX-License-Identifier: MIT OR Apache-2.0
//! A table: its columns, its rows, their order, and which of them are shown.

use std::cmp::Ordering;

/// The least columns of the terminal that the column gets which has the rest.
const REST_MIN: usize = 12;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its columns of the terminal, with the space before it. 0: all that the others leave.
    pub width: usize,
    /// Whether its texts begin at the left.
    pub is_left: bool,
}

/// Returns a column of numbers.
pub const fn number(name: &'static str, width: usize) -> Column {
    Column {
        name,
        width,
        is_left: false,
    }
}

/// Returns a column of texts.
pub const fn text(name: &'static str, width: usize) -> Column {
    Column {
        name,
        width,
        is_left: true,
    }
}

/// What stands in a row's column.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number: as it is shown, and by what it is sorted.
    Number(String, f64),
    /// For whom requests waited: client, nginx, upstream, wait.
    Bar([u128; 4]),
    /// Nothing is known.
    Absent,
}

impl Cell {
    /// Returns a number that is shown as this function does. Absent when it is.
    pub fn of(value: Option<u64>, show: impl Fn(u64) -> String) -> Self {
        value.map_or(Self::Absent, |value| {
            Self::Number(show(value), value as f64)
        })
    }
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What distinguishes it from other rows.
    pub id: String,
    /// Its cells, as many as there are columns.
    pub cells: Vec<Cell>,
    /// Whether it stands for all that found no room: it comes last.
    pub is_other: bool,
    /// The rows that belong to it and follow it.
    pub children: Vec<Self>,
}

impl Row {
    /// Creates one with these cells.
    pub fn new(id: String, cells: Vec<Cell>) -> Self {
        Self {
            id,
            cells,
            is_other: false,
            children: Vec::new(),
        }
    }

    /// Returns whether its name has this text, whatever the case.
    fn matches(&self, lower: &str) -> bool {
        self.cells.iter().any(|cell| match cell {
            Cell::Text(text) => text.to_lowercase().contains(lower),
            _ => false,
        })
    }

    /// Returns how it compares to another one by a column: smaller ones first, absent ones last.
    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let place = |row: &Self| (row.is_other, is_absent(row.cells.get(order.column)));
        let values = match (self.cells.get(order.column), other.cells.get(order.column)) {
            (Some(Cell::Text(a)), Some(Cell::Text(b))) => a.cmp(b),
            (Some(Cell::Number(_, a)), Some(Cell::Number(_, b))) => a.total_cmp(b),
            (Some(Cell::Bar(a)), Some(Cell::Bar(b))) => {
                let sum = |shares: &[u128; 4]| shares.iter().sum::<u128>();
                sum(a).cmp(&sum(b))
            }
            _ => Ordering::Equal,
        };
        let values = if order.is_descending {
            values.reverse()
        } else {
            values
        };
        let by_place = place(self).cmp(&place(other));
        by_place.then(values).then_with(|| self.id.cmp(&other.id))
    }
}

/// Returns whether nothing is known.
fn is_absent(cell: Option<&Cell>) -> bool {
    matches!(cell, None | Some(Cell::Absent))
}

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: usize,
    /// Whether the largest comes first.
    pub is_descending: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// The columns.
    pub columns: &'static [Column],
    /// The rows, in any order.
    pub rows: Vec<Row>,
    /// Their order.
    pub order: Order,
}

impl Table {
    /// Returns the rows that contain a text, in order, each with whether it belongs to the one above.
    pub fn shown(&self, filter: &str) -> Vec<(&Row, bool)> {
        let filter = filter.to_lowercase();
        let sorted = |rows: &'_ [Row]| {
            let mut places: Vec<usize> = (0..rows.len()).collect();
            places.sort_by(|a, b| rows[*a].compare(&rows[*b], self.order));
            places
        };
        let mut shown = Vec::new();
        for row in sorted(&self.rows) {
            let row = &self.rows[row];
            let is_whole = row.matches(&filter);
            let children = sorted(&row.children).into_iter();
            let children: Vec<_> = children
                .map(|child| (&row.children[child], true))
                .filter(|(child, _)| is_whole || child.matches(&filter))
                .collect();
            if is_whole || !children.is_empty() {
                shown.push((row, false));
                shown.extend(children);
            }
        }
        shown
    }

    /// Returns the columns for which a width has room, with the width of each: those at the right are left out.
    pub fn fitting(&self, width: usize) -> Vec<(usize, usize)> {
        let rest = |n: usize| {
            let fixed: usize = self.columns[..n].iter().map(|column| column.width).sum();
            width.checked_sub(fixed)
        };
        let place = self.columns.iter().position(|column| column.width == 0);
        let least = place.map_or(0, |place| place + 1);
        let mut counts = (least..=self.columns.len()).rev();
        let count = counts.find(|n| rest(*n).is_some_and(|rest| rest >= REST_MIN));
        let count = count.unwrap_or(least);
        let mut left = width;
        let mut fitting = Vec::new();
        for (n, column) in self.columns[..count].iter().enumerate() {
            let wanted = if column.width == 0 {
                rest(count).unwrap_or(left)
            } else {
                column.width
            };
            let given = wanted.min(left);
            left -= given;
            fitting.push((n, given));
        }
        fitting
    }
}

/// Which row is selected: by what distinguishes it, so that it stays selected where others overtake it.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    id: Option<String>,
    at: usize,
}

impl Selection {
    /// Returns the place of the selected row, among these.
    pub fn place(&self, rows: &[(&Row, bool)]) -> usize {
        let same = |id: &String| rows.iter().position(|(row, _)| row.id == *id);
        let place = self.id.as_ref().and_then(same);
        place.unwrap_or(self.at.min(rows.len().saturating_sub(1)))
    }

    /// Selects the row this number of rows further down; up if it is negative.
    pub fn move_by(&mut self, rows: &[(&Row, bool)], by: isize) {
        let last = rows.len().saturating_sub(1);
        self.at = self.place(rows).saturating_add_signed(by).min(last);
        self.id = rows.get(self.at).map(|(row, _)| row.id.clone());
    }
}
