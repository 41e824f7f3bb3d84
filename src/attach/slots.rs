// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values at small numbers, by which BPF finds what belongs to them.

use std::rc::Rc;

/// Shared values, each at a number. The number of a value that was removed is used again.
pub struct Slots<T>(Vec<Option<Rc<T>>>);

impl<T> Slots<T> {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the lowest free number, if it is less than `max`.
    pub fn free(&self, max: u32) -> Option<u32> {
        let free = self.0.iter().position(Option::is_none);
        let number = u32::try_from(free.unwrap_or(self.0.len())).ok();
        number.filter(|number| *number < max)
    }

    /// Puts a value at a number that `free()` has returned.
    pub fn put(&mut self, number: u32, value: T) -> Rc<T> {
        let number = number as usize;
        if number >= self.0.len() {
            self.0.resize_with(number + 1, || None);
        }
        Rc::clone(self.0[number].insert(Rc::new(value)))
    }

    /// Removes the value at a number, and returns it. `None` when something else still has the value.
    pub fn take_unused(&mut self, number: u32) -> Option<T> {
        let slot = self.0.get_mut(number as usize)?;
        let value = slot.take_if(|value| Rc::strong_count(value) == 1)?;
        Rc::into_inner(value)
    }

    /// Returns all values.
    pub fn values(&self) -> impl Iterator<Item = &Rc<T>> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    /// Check that a number is free again when its value was removed, and is used before greater ones;
    /// and that there are no more numbers than the limit.
    #[test]
    fn used_again() {
        let mut slots = Slots::new();
        for expected in 0..3 {
            let number = slots.free(3).unwrap();
            assert_eq!(number, expected);
            slots.put(number, number);
        }
        assert_eq!(slots.free(3), None);
        assert_eq!(slots.take_unused(1), Some(1));
        assert_eq!(slots.free(3), Some(1));
        assert_eq!(slots.free(1), None);
        slots.put(1, 7);
        let values: Vec<u32> = slots.values().map(|value| **value).collect();
        assert_eq!(values, [0, 7, 2]);
        assert_eq!(slots.free(4), Some(3));
    }

    /// Check that a value stays until nothing else has it, and that a number without a value is not an
    /// error.
    #[test]
    fn shared() {
        let mut slots = Slots::new();
        let first = slots.put(0, "x");
        let second = slots.values().next().cloned();
        drop(first);
        assert_eq!(slots.take_unused(0), None);
        assert_eq!(slots.values().count(), 1);
        drop(second);
        assert_eq!(slots.take_unused(0), Some("x"));
        assert_eq!(slots.take_unused(0), None);
        assert_eq!(slots.take_unused(9), None);
        assert_eq!(slots.values().count(), 0);
    }
}
