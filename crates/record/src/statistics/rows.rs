// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bounded number of rows by name: what does not fit is counted together.

use std::collections::HashMap;

/// The most bytes of a row's name. The rest is cut.
const NAME_BYTES: usize = 256;

/// Rows by name.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    rows: HashMap<String, T>,
    /// The row of all that found no room.
    other: T,
    /// The number of times that something found none.
    others: u64,
    /// The most rows.
    max: usize,
}

impl<T: Clone + Default> Rows<T> {
    /// Creates them without a row.
    pub fn new(max: usize) -> Self {
        Self {
            rows: HashMap::new(),
            other: T::default(),
            others: 0,
            max,
        }
    }

    /// Returns the row of this name, which is made if there is room, or else that of all others.
    pub fn row(&mut self, name: &str) -> &mut T {
        let mut ends = (0..=name.len().min(NAME_BYTES)).rev();
        let end = ends.find(|end| name.is_char_boundary(*end));
        let name = &name[..end.unwrap_or_default()];
        if !self.rows.contains_key(name) {
            if self.rows.len() >= self.max {
                self.others += 1;
                return &mut self.other;
            }
            self.rows.insert(name.to_owned(), T::default());
        }
        match self.rows.get_mut(name) {
            Some(row) => row,
            None => &mut self.other,
        }
    }

    /// Adds the rows of another one.
    pub fn merge(&mut self, from: &Self, add: impl Fn(&mut T, &T)) {
        for (name, row) in &from.rows {
            add(self.row(name), row);
        }
        add(&mut self.other, &from.other);
        self.others += from.others;
    }

    /// Returns all rows with a name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &T)> {
        self.rows.iter().map(|(name, row)| (name.as_str(), row))
    }

    /// Returns the row of this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.rows.get(name)
    }

    /// Returns the row of all that found no room. `None` when all found some.
    pub fn other(&self) -> Option<&T> {
        (self.others > 0).then_some(&self.other)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    /// Check that what finds no room is counted together, also when rows are merged.
    #[test]
    fn bounded() {
        let mut rows: Rows<u64> = Rows::new(2);
        for name in ["a", "b", "c", "a", "d"] {
            *rows.row(name) += 1;
        }
        let mut merged: Rows<u64> = Rows::new(2);
        *merged.row("z") += 1;
        merged.merge(&rows, |to, from| *to += from);
        for (rows, others) in [(&rows, 2), (&merged, 2)] {
            assert_eq!(rows.named().count(), 2);
            assert!(*rows.other().unwrap() >= others);
        }
        assert_eq!((rows.get("a"), rows.get("c")), (Some(&2), None));
        let sum: u64 = merged.named().map(|(_, count)| count).sum();
        assert_eq!(sum + merged.other().unwrap(), 6);
        assert_eq!(Rows::<u64>::new(1).other(), None);
    }

    /// Check that a long name is cut between characters.
    #[test]
    fn long_name() {
        let mut rows: Rows<u64> = Rows::new(2);
        *rows.row(&"é".repeat(200)) += 1;
        *rows.row(&"é".repeat(300)) += 1;
        assert_eq!(rows.named().count(), 1);
    }
}
