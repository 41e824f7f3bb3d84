// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of the kernel's code, where the kernel shows them to this process.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Seek as _;

/// The list of symbols. The kernel judges who opens it, and not who reads it.
const LIST: &str = "/proc/kallsyms";

/// The most addresses whose names are kept.
const KNOWN_MAX: usize = 4096;

/// A function is not longer: an address that is further from a symbol belongs to none.
const FUNCTION_BYTES_MAX: u64 = 1 << 16;

/// The most bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// The symbols of the kernel. They are read when an address is not known yet, since modules come and go,
/// and some hundred thousand of them would take megabytes.
pub struct KernelSymbols {
    /// `None` when it can't be opened.
    list: Option<File>,
    /// The names that were found. `None`: there is none.
    known: HashMap<u64, Option<String>>,
}

impl KernelSymbols {
    /// Opens the list.
    pub fn open() -> Self {
        Self {
            list: File::open(LIST).ok(),
            known: HashMap::new(),
        }
    }

    /// Returns the name of each address with the distance from the begin of the function. `None` where
    /// the kernel does not show it.
    pub fn names(&mut self, addresses: &[u64]) -> Vec<Option<String>> {
        let new = addresses.iter().any(|at| !self.known.contains_key(at));
        if new {
            if self.known.len() > KNOWN_MAX {
                self.known.clear();
            }
            let list = self.list.as_ref();
            let found = list.and_then(|list| find(list, addresses));
            let found = found.unwrap_or_else(|| vec![None; addresses.len()]);
            self.known.extend(addresses.iter().copied().zip(found));
        }
        let known = addresses.iter().map(|at| self.known.get(at));
        known.map(|name| name.cloned().flatten()).collect()
    }
}

/// Searches the list for the functions of these addresses. `None` when it can't be read.
fn find(mut list: &File, addresses: &[u64]) -> Option<Vec<Option<String>>> {
    list.rewind().ok()?;
    let mut lines = BufReader::with_capacity(1 << 16, list);
    let mut best: Vec<(u64, String)> = vec![(0, String::new()); addresses.len()];
    let mut line = String::new();
    while lines.read_line(&mut line).ok()? > 0 {
        if let Some((start, name)) = function(&line) {
            for (best, address) in best.iter_mut().zip(addresses) {
                if start <= *address && start > best.0 {
                    *best = (start, name.to_owned());
                }
            }
        }
        line.clear();
    }
    let named = best.into_iter().zip(addresses);
    let named = named.map(|((start, name), address)| {
        let distance = address - start;
        (start > 0 && distance < FUNCTION_BYTES_MAX).then(|| format!("{name}+{distance:#x}"))
    });
    Some(named.collect())
}

/// Parses a line: an address, a type, a name, and the name of the module. `None` when it is not of a
/// function, or the kernel hides the address.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next()?, 16).ok()?;
    let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
    let name = fields.next()?;
    let is_short = name.len() <= NAME_BYTES_MAX;
    (is_code && is_short && start > 0).then_some((start, name))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::KernelSymbols;
    use super::function;

    /// Check lines of functions, of data, and of a kernel that hides its addresses.
    #[test]
    fn lines() {
        let line = "ffffffff810001e0 T schedule\t[module]\n";
        assert_eq!(function(line), Some((0xffff_ffff_8100_01e0, "schedule")));
        for other in ["0000000000000000 T a", "ffffffff810001e0 D a", "x T a", ""] {
            assert_eq!(function(other), None);
        }
    }

    /// Check the names of addresses within functions, before the first one and far after the last one, in a
    /// list without order.
    #[test]
    fn names() {
        let mut list = tempfile::tempfile().unwrap();
        list.write_all(b"2000 T b\n1000 t a\n3000 D data\n")
            .unwrap();
        let mut symbols = KernelSymbols {
            list: Some(list),
            known: Default::default(),
        };
        let expected = [None, Some("a+0x0"), Some("b+0x1"), None];
        let expected = expected.map(|name| name.map(str::to_owned));
        for _ in 0..2 {
            assert_eq!(symbols.names(&[0xfff, 0x1000, 0x2001, 0x2_0000]), expected);
        }
        let mut hidden = KernelSymbols {
            list: None,
            known: Default::default(),
        };
        assert_eq!(hidden.names(&[0x1000]), [None]);
    }
}
