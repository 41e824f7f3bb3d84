// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trials with a BPF program that does nothing. It is loaded and attached like the programs that
//! trace, and detached at once, because only the kernel knows what it allows this process.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::ptr;

use libbpf_rs::libbpf_sys;

/// The file that this process runs, on which the uprobe is tried.
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// The file with the type number of the perf events for uprobes.
const PERF_TYPE: &str = "/sys/bus/event_source/devices/uprobe/type";

/// The instructions of the program. They call `bpf_probe_read_kernel()`, as the programs that trace do:
/// under lockdown, at the level "confidentiality", the kernel loads no program that does.
const CODE: [u64; 7] = [
    0xa1bf,                /* r1 = r10 */
    0xffff_fff8_0000_0107, /* r1 += -8 */
    0x0008_0000_02b7,      /* r2 = 8 */
    0x03b7,                /* r3 = 0 */
    0x0071_0000_0085,      /* call 113 */
    0xb7,                  /* r0 = 0 */
    0x95,                  /* exit */
];

/// The methods to attach uprobes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UprobeMethod {
    /// `uprobe_multi` links (Linux 6.6), which cost less.
    Multi,
    /// One perf event for each probe.
    Perf,
}

/// A loaded program.
pub struct Trial(OwnedFd);

impl Trial {
    /// Loads a program for uprobes.
    pub fn of_uprobe(method: UprobeMethod) -> io::Result<Self> {
        let attach_type = match method {
            UprobeMethod::Multi => libbpf_sys::BPF_TRACE_UPROBE_MULTI,
            UprobeMethod::Perf => 0,
        };
        Self::load(libbpf_sys::BPF_PROG_TYPE_KPROBE, attach_type, 0)
    }

    /// Loads a program for a tracepoint, by its BTF type.
    pub fn of_tracepoint(type_id: u32) -> io::Result<Self> {
        let attach_type = libbpf_sys::BPF_TRACE_RAW_TP;
        Self::load(libbpf_sys::BPF_PROG_TYPE_TRACING, attach_type, type_id)
    }

    /// Loads a program for the end of a kernel function, by its BTF type.
    pub fn of_fexit(type_id: u32) -> io::Result<Self> {
        let attach_type = libbpf_sys::BPF_TRACE_FEXIT;
        Self::load(libbpf_sys::BPF_PROG_TYPE_TRACING, attach_type, type_id)
    }

    /// Loads a program that reads the kernel's memory and does nothing with it.
    fn load(
        program_type: libbpf_sys::bpf_prog_type,
        attach_type: libbpf_sys::bpf_attach_type,
        type_id: u32,
    ) -> io::Result<Self> {
        let code = CODE.map(u64::to_le_bytes).concat();
        let options = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
            expected_attach_type: attach_type,
            attach_btf_id: type_id,
            ..Default::default()
        };
        // SAFETY: the code has as many instructions as it is said to have, every pointer outlives the
        // call.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                program_type,
                c"ngx_bpf_trial".as_ptr(),
                c"GPL".as_ptr(),
                code.as_ptr().cast(),
                CODE.len() as libbpf_sys::size_t,
                &raw const options as *mut _,
            )
        };
        owned(fd).map(Self)
    }

    /// Attaches the program to its place in the kernel, and detaches it.
    pub fn attach_to_kernel(&self) -> io::Result<()> {
        // SAFETY: a program at a place that its types name has no name; the descriptor lives until the
        // call returns.
        owned(unsafe { libbpf_sys::bpf_raw_tracepoint_open(ptr::null(), self.0.as_raw_fd()) })?;
        Ok(())
    }

    /// Attaches the program to a function of this process that is never called, and detaches it.
    pub fn attach_to_self(&self, method: UprobeMethod) -> io::Result<()> {
        let offset = file_offset_of(uprobe_target as fn() as usize)?;
        match method {
            UprobeMethod::Multi => self.attach_multi(offset),
            UprobeMethod::Perf => self.attach_perf(offset),
        }
    }

    /// Attaches as libbpf's `bpf_program__attach_uprobe_multi()` does.
    fn attach_multi(&self, offset: u64) -> io::Result<()> {
        let mut options = link_options();
        let cookie = 0_u64;
        options.__bindgen_anon_1.uprobe_multi =
            libbpf_sys::bpf_link_create_opts__bindgen_ty_1__bindgen_ty_3 {
                cnt: 1,
                path: OWN_PROGRAM.as_ptr(),
                offsets: &raw const offset,
                cookies: &raw const cookie,
                ..Default::default()
            };
        self.link(0, libbpf_sys::BPF_TRACE_UPROBE_MULTI, &options)
    }

    /// Attaches as libbpf's `bpf_program__attach_uprobe_opts()` does.
    fn attach_perf(&self, offset: u64) -> io::Result<()> {
        let number = fs::read_to_string(PERF_TYPE)?;
        let number = number.trim_end().parse().map_err(io::Error::other)?;
        let mut event = libbpf_sys::perf_event_attr {
            type_: number,
            size: size_of::<libbpf_sys::perf_event_attr>() as u32,
            ..Default::default()
        };
        event.__bindgen_anon_3.uprobe_path = OWN_PROGRAM.as_ptr() as u64;
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
        let event = owned(i32::try_from(fd).map_err(io::Error::other)?)?;
        let mut options = link_options();
        options.__bindgen_anon_1.perf_event.bpf_cookie = 1;
        self.link(event.as_raw_fd(), libbpf_sys::BPF_PERF_EVENT, &options)
    }

    /// Creates a link, and closes it at once.
    fn link(
        &self,
        target: i32,
        attach_type: libbpf_sys::bpf_attach_type,
        options: &libbpf_sys::bpf_link_create_opts,
    ) -> io::Result<()> {
        // SAFETY: the descriptors and all that the options point to live until the call returns.
        owned(unsafe {
            libbpf_sys::bpf_link_create(self.0.as_raw_fd(), target, attach_type, options)
        })?;
        Ok(())
    }
}

/// Returns the options of a link, without any value.
pub fn link_options() -> libbpf_sys::bpf_link_create_opts {
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

/// The function that the uprobe is attached to.
#[inline(never)]
fn uprobe_target() {
    std::hint::black_box(());
}

/// Returns the file offset of the bytes that are mapped at an address.
fn file_offset_of(address: usize) -> io::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let address = address as u64;
    let offset = maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, offset) = (hex(start)?, hex(end)?, hex(fields.nth(1)?)?);
        (start..end)
            .contains(&address)
            .then(|| address - start + offset)
    });
    offset.ok_or_else(|| io::Error::other("no function of this program is mapped"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use super::file_offset_of;
    use super::uprobe_target;

    /// Check that the bytes of a function are at its offset in the file.
    #[test]
    fn offset_of_a_function() {
        let address = uprobe_target as fn() as usize;
        let mut in_file = [0];
        File::open("/proc/self/exe")
            .unwrap()
            .read_exact_at(&mut in_file, file_offset_of(address).unwrap())
            .unwrap();
        // SAFETY: the function has at least one byte.
        assert_eq!(in_file[0], unsafe { *(address as *const u8) });
        assert!(file_offset_of(0).is_err());
    }
}
