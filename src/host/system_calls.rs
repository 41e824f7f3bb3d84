// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that this process gives up for good before it attaches to a process, by a seccomp
//! filter. It traces, reads and writes; it does not run programs, open connections (but to the receiver of `--otlp`),
//! change files other than by writing to them, or change the machine.

use std::io;
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use libc::c_long;
use libc::sock_filter;

use forbidden::FORBIDDEN;
use forbidden::FORBIDDEN_HERE;

mod forbidden;

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of the kernel's `audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The last system call that was considered. Later ones fail as they do on a kernel that does not have
/// them, and so do those of x32.
const LAST: c_long = libc::SYS_mseal;

/// Jumps: if the word that was loaded equals a value, exceeds it, or has one of its bits.
const EQUALS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const EXCEEDS: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const HAS_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

/// The number of filters that this process has given all of its threads.
static OWN_FILTERS: AtomicU32 = AtomicU32::new(0);

/// Returns the number of filters that this process has given all of its threads, which sandboxes add to.
pub fn own_filters() -> u32 {
    OWN_FILTERS.load(Ordering::Relaxed)
}

/// The threads that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All threads of this process, and those that they start.
    All,
    /// This thread, and those that it starts.
    #[cfg(test)]
    This,
}

/// What is done with the network from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Sockets that listen, or are connected, go on. There are no new ones.
    Closed,
    /// New connections are made, over TCP.
    Connects,
}

/// Gives up all system calls that are not needed any more, and memory that is mapped as code.
///
/// Fails when the kernel has no seccomp filters, or when a sandbox forbids them.
pub fn give_up(threads: Threads, network: Network) -> io::Result<()> {
    let filter = filter(std::process::id(), network);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    /* Without this flag kernels before 5.16 slow the process down against speculation. */
    let mut flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if threads == Threads::All {
        flags |= libc::SECCOMP_FILTER_FLAG_TSYNC;
    }
    // SAFETY: the program and its instructions live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match result {
        0 => {
            if threads == Threads::All {
                OWN_FILTERS.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
        1.. => Err(io::Error::other("a thread has a filter of its own")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the instructions of the filter for a process. For a system call that is judged by its number
/// alone, the kernel runs them once, and remembers the answer.
fn filter(own_pid: u32, network: Network) -> Vec<sock_filter> {
    let (forbidden, allowed) = (fails(libc::EPERM), returns(libc::SECCOMP_RET_ALLOW));
    let mut filter = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        instruction(EQUALS, ARCHITECTURE, 1, 0),
        forbidden,
        load(offset_of!(libc::seccomp_data, nr)),
        instruction(EXCEEDS, number(LAST), 0, 1),
        fails(libc::ENOSYS),
        /* Its flags are in memory, so that libc has to use clone(). */
        instruction(EQUALS, number(libc::SYS_clone3), 0, 1),
        fails(libc::ENOSYS),
    ];
    if network == Network::Connects {
        filter.extend(to_connect());
    }
    for call in FORBIDDEN.iter().chain(&FORBIDDEN_HERE) {
        filter.extend([instruction(EQUALS, number(*call), 0, 1), forbidden]);
    }
    let thread = libc::CLONE_THREAD.unsigned_abs();
    let code = libc::PROT_EXEC.unsigned_abs();
    let (if_so, unless) = ([allowed, forbidden], [forbidden, allowed]);
    let conditions = [
        (libc::SYS_clone, 0, HAS_BITS, thread, if_so),
        (libc::SYS_mmap, 2, HAS_BITS, code, unless),
        (libc::SYS_mprotect, 2, HAS_BITS, code, unless),
        (libc::SYS_pkey_mprotect, 2, HAS_BITS, code, unless),
        /* abort() signals this process. */
        (libc::SYS_tgkill, 0, EQUALS, own_pid, if_so),
        /* The pid 0 stands for this process. */
        (libc::SYS_prlimit64, 0, EQUALS, 0, if_so),
    ];
    for (call, argument, test, value, [if_true, if_false]) in conditions {
        filter.extend([
            instruction(EQUALS, number(call), 0, 4),
            load_argument(argument),
            instruction(test, value, 0, 1),
            if_true,
            if_false,
        ]);
    }
    /* These type into a terminal, whose shell then runs what was typed. */
    filter.extend([
        instruction(EQUALS, number(libc::SYS_ioctl), 0, 4),
        load_argument(1),
        instruction(EQUALS, libc::TIOCSTI as u32, 1, 0),
        instruction(EQUALS, libc::TIOCLINUX as u32, 0, 1),
        forbidden,
        allowed,
    ]);
    filter
}

/// Returns the instructions that allow to connect, with sockets for TCP over IPv4 and IPv6 alone, before these calls are
/// forbidden.
fn to_connect() -> Vec<sock_filter> {
    let allowed = returns(libc::SECCOMP_RET_ALLOW);
    let [ipv4, ipv6, stream, tcp, flags] = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::SOCK_STREAM,
        libc::IPPROTO_TCP,
        libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
    ]
    .map(i32::unsigned_abs);
    vec![
        instruction(EQUALS, number(libc::SYS_connect), 0, 1),
        allowed,
        instruction(EQUALS, number(libc::SYS_socket), 0, 11),
        load_argument(0),
        instruction(EQUALS, ipv4, 1, 0),
        instruction(EQUALS, ipv6, 0, 7),
        load_argument(1),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !flags, 0, 0),
        instruction(EQUALS, stream, 0, 4),
        load_argument(2),
        instruction(EQUALS, 0, 1, 0),
        instruction(EQUALS, tcp, 0, 1),
        allowed,
        fails(libc::EPERM),
    ]
}

/// Returns the instruction that loads a word of `struct seccomp_data`, which has 64 bytes.
fn load(offset: usize) -> sock_filter {
    instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        offset as u32,
        0,
        0,
    )
}

/// Returns the one that loads the lower half of an argument. It comes first, since both machines are
/// little-endian; the kernel takes no more of these arguments.
fn load_argument(number: usize) -> sock_filter {
    load(offset_of!(libc::seccomp_data, args) + 8 * number)
}

/// Returns the instruction that ends the filter with an action.
fn returns(action: u32) -> sock_filter {
    instruction(libc::BPF_RET, action, 0, 0)
}

/// Returns the one that makes the system call fail.
fn fails(error: i32) -> sock_filter {
    returns(libc::SECCOMP_RET_ERRNO | error.unsigned_abs())
}

/// Returns an instruction, with the numbers of instructions to skip when its condition holds, and when
/// it does not.
fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    /* Codes have 16 bits. */
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Returns the number of a system call, as a filter sees it.
fn number(call: c_long) -> u32 {
    /* They are small. */
    call as u32
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::net::TcpStream;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use libc::c_long;
    use rustix::thread::set_no_new_privs;

    use super::Network;
    use super::Threads;
    use super::give_up;
    use crate::host::foreign;

    /// Check what a thread can't do any more, and that it reads, writes and starts threads as before.
    #[test]
    fn given_up() {
        let folder = tempfile::tempdir().unwrap();
        let (path, listener) = (
            folder.path().join("file"),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        );
        fs::write(&path, b"x").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        let fenced = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            give_up(Threads::This, Network::Closed).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"x");
            /* Debug files are found through links as before. */
            let link = Path::new("link");
            assert!(foreign::beneath(path.parent().unwrap(), link).is_some());
            assert!(foreign::beside(&path).is_some());
            fs::write(&path, b"xy").unwrap();
            assert!(thread::spawn(|| 7).join().is_ok_and(|n| n == 7));
            listener.set_nonblocking(true).unwrap();
            let accepted = listener.accept().map(|_| ()).unwrap_err();
            assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
            let refused = [
                Command::new("/bin/true").status().map(|_| ()),
                TcpListener::bind("127.0.0.1:0").map(|_| ()),
                fs::rename(&path, path.with_extension("new")),
                fs::remove_file(&path),
                fs::create_dir(path.with_extension("folder")),
                rustix::fs::chmod(&path, rustix::fs::Mode::RWXU).map_err(Into::into),
                map_code(),
                call(libc::SYS_tgkill, [1, 1, 0]),
                call(libc::SYS_prlimit64, [1, libc::RLIMIT_NOFILE.into(), 0]),
                call(libc::SYS_setpriority, [0, 1, 0]),
                call(libc::SYS_ioctl, [0, libc::TIOCSTI as c_long, 0]),
            ];
            for result in refused {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            }
            let own = c_long::from(std::process::id());
            // SAFETY: the call takes numbers.
            let thread = c_long::from(unsafe { libc::gettid() });
            call(libc::SYS_tgkill, [own, thread, 0]).unwrap();
            let unknown = call(super::LAST + 1, [0; 3]).unwrap_err();
            assert_eq!(unknown.raw_os_error(), Some(libc::ENOSYS));
        });
        fenced.join().unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success());
    }

    /// Check that only connections over IPv4 and IPv6 are made where that is asked for.
    #[test]
    fn connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fenced = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            give_up(Threads::This, Network::Connects).unwrap();
            assert!(TcpStream::connect(address).is_ok());
            for error in [
                UnixStream::pair().unwrap_err(),
                UnixDatagram::unbound().unwrap_err(),
                TcpListener::bind("127.0.0.1:0").unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            }
        });
        fenced.join().unwrap();
    }

    /// Makes a system call whose arguments are numbers, or null.
    fn call(number: c_long, arguments: [c_long; 3]) -> io::Result<()> {
        let [one, two, three] = arguments;
        // SAFETY: no argument is the address of anything.
        match unsafe { libc::syscall(number, one, two, three) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Maps a page as code.
    fn map_code() -> io::Result<()> {
        let (prot, flags) = (
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC,
            rustix::mm::MapFlags::PRIVATE,
        );
        // SAFETY: a new mapping, which is never accessed.
        let mapping =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, prot, flags) };
        Ok(mapping.map(|_| ())?)
    }
}
