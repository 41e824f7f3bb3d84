// SPDX-License-Identifier: MIT OR Apache-2.0
//! Task storage: values of BPF that the kernel keeps with a process, and frees when it ends.

use libbpf_rs::ErrorKind;
use libbpf_rs::Result;

/// The number of tries to add a value. The kernel returns EAGAIN to one of two tools that create the
/// first storage of a process at the same time (`bpf_local_storage_alloc()`); the process has a
/// storage then.
const TRIES: usize = 8;

/// Adds a value to a process by `update`. It is not an error that the process has one that must stay,
/// or that it has ended, which `is_alive` finds out.
pub fn add(update: impl Fn() -> Result<()>, is_alive: impl Fn() -> bool) -> Result<()> {
    for tries_left in (0..TRIES).rev() {
        match update() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && tries_left > 0 => {}
            Err(error) if error.kind() != ErrorKind::AlreadyExists && is_alive() => {
                return Err(error);
            }
            _ => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use libbpf_rs::Error;
    use libbpf_rs::ErrorKind;

    use super::TRIES;
    use super::add;

    /// Adds a value while the kernel returns these errors, one after the other, then none. Returns the
    /// kind of the error, and the number of tries.
    fn tried(errors: &[i32], is_alive: bool) -> (Option<ErrorKind>, usize) {
        let tries = Cell::new(0);
        let update = || {
            let error = errors.get(tries.get());
            tries.set(tries.get() + 1);
            error.map_or(Ok(()), |error| Err(Error::from_raw_os_error(*error)))
        };
        let result = add(update, || is_alive);
        (result.err().map(|error| error.kind()), tries.get())
    }

    /// Check which errors are tried again, reported, and ignored.
    #[test]
    fn errors() {
        assert_eq!(tried(&[], true), (None, 1));
        assert_eq!(tried(&[libc::EAGAIN; 2], true), (None, 3));
        let always = [libc::EAGAIN; TRIES + 1];
        assert_eq!(tried(&always, true), (Some(ErrorKind::WouldBlock), TRIES));
        assert_eq!(tried(&always, false), (None, TRIES));
        assert_eq!(tried(&[libc::EEXIST], true), (None, 1));
        let denied = (Some(ErrorKind::PermissionDenied), 1);
        assert_eq!(tried(&[libc::EPERM], true), denied);
        assert_eq!(tried(&[libc::ESRCH], false), (None, 1));
    }
}
