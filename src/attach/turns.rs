// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns of the event loop (`--blocked`): what BPF keeps of each process, and the samples of where it
//! runs. The kernel's CPU clock of a process only runs while the process has a CPU.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd as _;
use std::os::fd::IntoRawFd as _;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::Link;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::Skel as _;
use plain::Plain;

use crate::attach::shared::SAMPLE;
use crate::attach::shared::SharedObject;
use crate::bpf::types;
use crate::host::descriptors;

/// The time between two samples of a process that runs, in nanoseconds: 49 samples in a second, which is
/// no multiple of what timers have.
const PERIOD_NS: u64 = 1_000_000_000 / 49;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::turn {}

/// The samples of processes.
#[derive(Default)]
pub struct Turns {
    /// The links to the events, each with its process.
    samples: RefCell<Vec<(OwnedFd, Link)>>,
}

impl Turns {
    /// Starts to watch the turns of a process, and to take samples of it. Records need neither: BPF adds
    /// an entry that is missing when the next turn begins, and without samples only the stacks are
    /// missing of a worker that runs all the time.
    pub fn watch(&self, shared: &SharedObject, pid: u32, pidfd: BorrowedFd<'_>) {
        let turn = types::turn::default();
        // SAFETY: `turn` is plain.
        let value = unsafe { plain::as_bytes(&turn) };
        let key = pidfd.as_raw_fd().to_ne_bytes();
        let turns = &shared.object.skel.maps.turns;
        let _ = turns.update(&key, value, MapFlags::NO_EXIST);
        self.forget_departed();
        let (process, link) = (pidfd.try_clone_to_owned(), sample(shared, pid));
        /* If it has ended by now, the pid may have been that of another process. */
        if let (Ok(process), Ok(link)) = (process, link)
            && descriptors::is_process_alive(&process)
        {
            self.samples.borrow_mut().push((process, link));
        }
    }

    /// Closes the events of processes that have ended. The kernel closes those that children inherited.
    pub fn forget_departed(&self) {
        let mut samples = self.samples.borrow_mut();
        samples.retain(|(process, _)| descriptors::is_process_alive(process));
    }

    /// Ends the samples.
    pub fn detach(&self) {
        self.samples.borrow_mut().clear();
    }
}

/// Attaches the program that takes samples to a process, and to the children that it has later.
fn sample(shared: &SharedObject, pid: u32) -> Result<Link> {
    let mut programs = shared.object.skel.object().progs_mut();
    let program = programs.find(|program| program.name() == SAMPLE);
    let program = program.context("the BPF object has no such program")?;
    let event = open_clock(pid)?;
    let link = program.attach_perf_event(event.as_raw_fd())?;
    /* The link closes it. */
    let _ = event.into_raw_fd();
    Ok(link)
}

/// Opens an event for the CPU clock of a process.
fn open_clock(pid: u32) -> Result<OwnedFd> {
    let mut event = libbpf_sys::perf_event_attr {
        type_: libbpf_sys::PERF_TYPE_SOFTWARE,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        config: u64::from(libbpf_sys::PERF_COUNT_SW_CPU_CLOCK),
        ..Default::default()
    };
    event.__bindgen_anon_1.sample_period = PERIOD_NS;
    event.set_inherit(1);
    event.set_disabled(1);
    // SAFETY: the kernel only reads `event`, which outlives the call. One process, on any CPU.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            i32::try_from(pid)?,
            -1,
            -1,
            libbpf_sys::PERF_FLAG_FD_CLOEXEC as libc::c_ulong,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}
