// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links: each attaches a loaded program to something, until its descriptor is closed.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;

use libbpf_rs::libbpf_sys;

/// Creates a link. Whatever the options point to must live until this returns.
pub fn create(
    program: BorrowedFd<'_>,
    target: i32,
    attach_type: libbpf_sys::bpf_attach_type,
    options: &libbpf_sys::bpf_link_create_opts,
) -> io::Result<OwnedFd> {
    // SAFETY: the descriptors and all that the options point to live until the call returns.
    owned(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, attach_type, options) })
}

/// Returns the options of a link, without any value.
pub fn options() -> libbpf_sys::bpf_link_create_opts {
    libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    }
}

/// Returns the result of a function of libbpf: a descriptor, or the error for a number below 0.
pub fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the descriptor is new, and no one else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
