// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a command ended, which its exit status says.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it was asked to.
    Fine,
    /// It failed, and the error was reported.
    Failed,
    /// As it was asked to, and `advise` has found something.
    Found,
}

impl From<bool> for Ending {
    fn from(is_fine: bool) -> Self {
        if is_fine { Self::Fine } else { Self::Failed }
    }
}
