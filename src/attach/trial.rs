// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trials with a BPF program that does nothing. It is loaded and attached like the programs that
//! trace, and detached at once, because only the kernel knows what it allows this process.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::ptr;

use libbpf_rs::libbpf_sys;

use crate::attach::link::owned;
use crate::attach::uprobe;
use crate::attach::uprobe::UprobeMethod;

/// The file that this process runs, on which the uprobe is tried.
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// A number for the program, as probes have one.
const COOKIE: u64 = 1;

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
        uprobe::attach(self.0.as_fd(), method, OWN_PROGRAM, offset, COOKIE)?;
        Ok(())
    }
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
