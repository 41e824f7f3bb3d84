// SPDX-License-Identifier: MIT OR Apache-2.0
//! A trial of task storage: whether the kernel keeps a value of some size with a process. Only the
//! kernel knows: Linux 7.3 creates such a map, and then has no memory for a value of more
//! than about 8,100 bytes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use libbpf_rs::libbpf_sys;
use rustix::process::PidfdFlags;
use rustix::process::getpid;
use rustix::process::pidfd_open;

use crate::attach::link::owned;

/// The ids of the types of a map, in the order in which they are added.
const KEY_TYPE: u32 = 1;
const VALUE_TYPE: u32 = 2;

/// The types of a map of task storage.
struct Types(NonNull<libbpf_sys::btf>);

impl Types {
    /// Loads the types of a map with values of `size` bytes, a multiple of 4.
    fn load(size: u32) -> io::Result<Self> {
        // SAFETY: it takes no arguments.
        let types = NonNull::new(unsafe { libbpf_sys::btf__new_empty() });
        let types = Self(types.ok_or_else(io::Error::last_os_error)?);
        let btf = types.0.as_ptr();
        let (int, array) = (KEY_TYPE as i32, VALUE_TYPE as i32);
        let signed = libbpf_sys::BTF_INT_SIGNED as i32;
        // SAFETY: the types are ours until they are dropped, and the name ends with a NUL.
        let results = unsafe {
            [
                (
                    libbpf_sys::btf__add_int(btf, c"int".as_ptr(), 4, signed),
                    int,
                ),
                (libbpf_sys::btf__add_array(btf, int, int, size / 4), array),
                (libbpf_sys::btf__load_into_kernel(btf), 0),
            ]
        };
        match results
            .into_iter()
            .find(|(result, wanted)| result != wanted)
        {
            Some((error, _)) => Err(io::Error::from_raw_os_error(error.saturating_abs())),
            None => Ok(types),
        }
    }

    /// Creates a map of task storage with these types.
    fn create_map(&self, size: u32) -> io::Result<OwnedFd> {
        // SAFETY: the types live longer than the call.
        let btf_fd = unsafe { libbpf_sys::btf__fd(self.0.as_ptr()) };
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            btf_fd: u32::try_from(btf_fd).map_err(io::Error::other)?,
            btf_key_type_id: KEY_TYPE,
            btf_value_type_id: VALUE_TYPE,
            map_flags: libbpf_sys::BPF_F_NO_PREALLOC,
            ..Default::default()
        };
        let (kind, name) = (libbpf_sys::BPF_MAP_TYPE_TASK_STORAGE, c"ngx_bpf_trial");
        // SAFETY: all that is pointed to lives longer than the call.
        owned(unsafe {
            libbpf_sys::bpf_map_create(kind, name.as_ptr(), 4, size, 0, &raw const options)
        })
    }
}

impl Drop for Types {
    fn drop(&mut self) {
        // SAFETY: the types are ours, and are not used any more.
        unsafe { libbpf_sys::btf__free(self.0.as_ptr()) };
    }
}

/// Keeps a value of `size` bytes, a multiple of 4, with this process. The kernel frees it at once,
/// with its map.
pub fn keep(size: u32) -> io::Result<()> {
    let map = Types::load(size)?.create_map(size)?;
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let key = process.as_raw_fd();
    let value = vec![0_u32; size as usize / 4];
    // SAFETY: the key is a descriptor, and the value has as many bytes as the map's values.
    let result = unsafe {
        libbpf_sys::bpf_map_update_elem(
            map.as_raw_fd(),
            (&raw const key).cast(),
            value.as_ptr().cast(),
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::keep;

    /// Check that a value is kept, and that one that is too large for any kernel is refused. Without
    /// privileges either is refused, and the test says that it skips.
    #[test]
    fn sizes() {
        match keep(4096) {
            Ok(()) => assert_eq!(
                keep(1 << 20).unwrap_err().kind(),
                ErrorKind::ArgumentListTooLong
            ),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
                println!("SKIP this machine: no privileges for a map of task storage: {error}");
            }
        }
    }
}
