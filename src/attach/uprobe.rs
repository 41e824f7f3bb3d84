// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uprobes: how a program is attached to an instruction of a file.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

use libbpf_rs::libbpf_sys;

use crate::attach::link;

/// The file with the type number of the perf events for uprobes.
const PERF_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// The methods to attach uprobes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UprobeMethod {
    /// `uprobe_multi` links (Linux 6.6), which cost less.
    Multi,
    /// One perf event for each probe.
    Perf,
}

/// Attaches a program to the instruction at `offset` of a file, for any process: BPF itself decides which
/// ones are traced, since the workers of a master have other pids. The program gets `cookie`. It stays
/// attached until the link is closed.
pub fn attach(
    program: BorrowedFd<'_>,
    method: UprobeMethod,
    path: &CStr,
    offset: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    match method {
        UprobeMethod::Multi => attach_multi(program, path, offset, cookie),
        UprobeMethod::Perf => attach_perf(program, path, offset, cookie),
    }
}

/// Attaches as libbpf's `bpf_program__attach_uprobe_multi()` does.
fn attach_multi(
    program: BorrowedFd<'_>,
    path: &CStr,
    offset: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let mut options = link::options();
    options.__bindgen_anon_1.uprobe_multi =
        libbpf_sys::bpf_link_create_opts__bindgen_ty_1__bindgen_ty_3 {
            cnt: 1,
            path: path.as_ptr(),
            offsets: &raw const offset,
            cookies: &raw const cookie,
            ..Default::default()
        };
    link::create(program, 0, libbpf_sys::BPF_TRACE_UPROBE_MULTI, &options)
}

/// Attaches as libbpf's `bpf_program__attach_uprobe_opts()` does. The link keeps the event.
fn attach_perf(
    program: BorrowedFd<'_>,
    path: &CStr,
    offset: u64,
    cookie: u64,
) -> io::Result<OwnedFd> {
    let number = fs::read_to_string(PERF_TYPE)?;
    let number = number.trim_end().parse().map_err(io::Error::other)?;
    let mut event = libbpf_sys::perf_event_attr {
        type_: number,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        ..Default::default()
    };
    event.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
    event.__bindgen_anon_4.probe_offset = offset;
    // SAFETY: the event and the path in it outlive the call. Any process, on one CPU.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            -1,
            0,
            -1,
            libbpf_sys::PERF_FLAG_FD_CLOEXEC as libc::c_ulong,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let event = link::owned(i32::try_from(fd).map_err(io::Error::other)?)?;
    let mut options = link::options();
    options.__bindgen_anon_1.perf_event.bpf_cookie = cookie;
    let target = event.as_raw_fd();
    link::create(program, target, libbpf_sys::BPF_PERF_EVENT, &options)
}
