// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that this process gives up for good when it has started, by a seccomp filter.
//! It traces, reads and writes; it does not run programs, open connections, change files other than by
//! writing to them, or change the machine.

use std::io;
use std::mem::offset_of;

use libc::c_long;
use libc::sock_filter;

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of the kernel's `audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The last system call that was considered. Later ones fail as they do on a kernel that does not have
/// them, and so do those of x32.
const LAST: c_long = libc::SYS_mseal;

/// `fchmodat2()`, which has this number on every machine.
const FCHMODAT2: c_long = 452;

/// System calls that fail with EPERM, on every machine.
const FORBIDDEN: [c_long; 99] = [
    /* Programs, and other processes. */
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_personality,
    libc::SYS_seccomp,
    /* The network. A socket that listens already goes on. */
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    /* Users. */
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    /* Names, modes and owners of files, and files by other ways than names. */
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    /* Mounts. */
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    /* The kernel and its settings. */
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    /* What has often had holes, or avoids a filter. */
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    libc::SYS_memfd_secret,
    libc::SYS_remap_file_pages,
    libc::SYS_lookup_dcookie,
];

/// Further ones of this machine, most of which are older forms of those above.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: [c_long; 23] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
];
#[cfg(target_arch = "aarch64")]
const FORBIDDEN_HERE: [c_long; 1] = [38 /* renameat() */];

/// System calls whose third argument has the rights of mapped memory.
const MAPPING: [c_long; 3] = [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect];

/// The threads that a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All threads of this process, and those that they start.
    All,
    /// This thread, and those that it starts.
    #[cfg(test)]
    This,
}

/// Gives up all system calls that are not needed any more, and memory that is mapped as code.
///
/// Fails when the kernel has no seccomp filters, or when a sandbox forbids them.
pub fn give_up(threads: Threads) -> io::Result<()> {
    let filter = filter();
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
        0 => Ok(()),
        1.. => Err(io::Error::other("a thread has a filter of its own")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the instructions of the filter. The kernel runs them once for each system call that looks
/// only at its number, and remembers the answer.
fn filter() -> Vec<sock_filter> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let exceeds = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let has_bits = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let fails = |error: i32| libc::SECCOMP_RET_ERRNO | error.unsigned_abs();
    let returns = |what| instruction(libc::BPF_RET, what, 0, 0);
    let (forbidden, allowed) = (fails(libc::EPERM), libc::SECCOMP_RET_ALLOW);
    /* The lower half of an argument comes first: both machines are little-endian. */
    let argument = |n: usize| {
        instruction(
            load,
            offset(offset_of!(libc::seccomp_data, args) + 8 * n),
            0,
            0,
        )
    };
    let mut filter = vec![
        instruction(load, offset(offset_of!(libc::seccomp_data, arch)), 0, 0),
        instruction(equals, ARCHITECTURE, 1, 0),
        returns(forbidden),
        instruction(load, offset(offset_of!(libc::seccomp_data, nr)), 0, 0),
        instruction(exceeds, number(LAST), 0, 1),
        returns(fails(libc::ENOSYS)),
        /* Its flags are in memory, so that libc has to use clone(). */
        instruction(equals, number(libc::SYS_clone3), 0, 1),
        returns(fails(libc::ENOSYS)),
    ];
    for call in FORBIDDEN.iter().chain(&FORBIDDEN_HERE) {
        filter.push(instruction(equals, number(*call), 0, 1));
        filter.push(returns(forbidden));
    }
    let thread = libc::CLONE_THREAD.unsigned_abs();
    filter.extend([
        instruction(equals, number(libc::SYS_clone), 0, 4),
        argument(0),
        instruction(has_bits, thread, 0, 1),
        returns(allowed),
        returns(forbidden),
    ]);
    for call in MAPPING {
        filter.extend([
            instruction(equals, number(call), 0, 4),
            argument(2),
            instruction(has_bits, libc::PROT_EXEC.unsigned_abs(), 0, 1),
            returns(forbidden),
            returns(allowed),
        ]);
    }
    filter.push(returns(allowed));
    filter
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

/// Returns an offset in `struct seccomp_data`, which has 64 bytes.
fn offset(bytes: usize) -> u32 {
    bytes as u32
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use rustix::thread::set_no_new_privs;

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
            give_up(Threads::This).unwrap();
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
            ];
            for result in refused {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            }
            // SAFETY: the kernel takes no number that it does not have.
            let unknown = unsafe { libc::syscall(super::LAST + 1, 0, 0, 0) };
            let error = std::io::Error::last_os_error();
            assert_eq!((unknown, error.raw_os_error()), (-1, Some(libc::ENOSYS)));
        });
        fenced.join().unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success());
    }

    /// Maps a page as code.
    fn map_code() -> std::io::Result<()> {
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
