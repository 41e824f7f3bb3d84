// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many files this process may have open: each binary that is traced takes some forty.

use rustix::process::Resource;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Raises the limit as far as it can be raised without a privilege. Where that is refused it stays
/// what it was: whoever needs more gets an error when it is reached.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
