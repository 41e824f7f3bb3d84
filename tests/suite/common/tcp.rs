// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP sockets of nginx as the kernel itself describes them, and sockets that lose what is sent to them.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use super::wait_right;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::pidfd_getfd;
use rustix::process::pidfd_open;

/// `TCP_SYN_SENT`, the state of a socket that connects.
const SYN_SENT: u8 = 2;

/// The longest segment that has no data.
pub const HEADER_MAX: u32 = 60;

/// What the kernel says about a TCP socket: `struct tcp_info` of its uapi, in part.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TcpInfo {
    state: u8,
    _state: [u8; 7],
    _timeouts: [u32; 4],
    /// Segments that were sent and not acknowledged.
    pub unacked: u32,
    _times: [u32; 10],
    /// In microseconds.
    pub rtt: u32,
    _rtt: [u32; 2],
    /// In packets.
    pub cwnd: u32,
    _windows: [u32; 4],
    pub total_retrans: u32,
    _rates: [u64; 4],
    _segments: [u32; 2],
    /// Bytes that were not sent yet.
    pub notsent: u32,
    _more: [u32; 3],
    _busy: [u64; 2],
    /// In microseconds.
    pub rwnd_limited: u64,
}

impl TcpInfo {
    /// Returns whether the other side has everything that was sent.
    pub fn is_idle(&self) -> bool {
        self.unacked == 0 && self.notsent == 0
    }

    fn of(socket: &TcpStream) -> Self {
        let mut info = Self::default();
        let mut size = u32::try_from(size_of::<Self>()).unwrap();
        // SAFETY: the descriptor belongs to the stream, and the kernel writes at most `size` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut size,
            )
        };
        assert_eq!((result, size as usize), (0, size_of::<Self>()));
        info
    }
}

/// Waits until a socket of a process satisfies a condition. It is the one that is connected to `peer`, or that
/// connects if there is none.
pub fn wait_info(
    pid: u32,
    peer: Option<SocketAddr>,
    is_right: impl Fn(&TcpInfo) -> bool,
) -> TcpInfo {
    let is_right = |info: &Option<TcpInfo>| info.as_ref().is_some_and(&is_right);
    wait_right(|| find(pid, peer), is_right).unwrap()
}

/// Returns what the kernel says of the socket. The descriptor is closed again at once: nginx's own close would not
/// close the connection otherwise.
fn find(pid: u32, peer: Option<SocketAddr>) -> Option<TcpInfo> {
    let process = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut sockets = files.filter_map(|file| {
        let is_socket = fs::read_link(file.path())
            .ok()?
            .to_str()?
            .starts_with("socket:");
        let number = file
            .file_name()
            .to_str()?
            .parse()
            .ok()
            .filter(|_| is_socket)?;
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        Some(TcpStream::from(socket))
    });
    sockets.find_map(|socket| match (peer, socket.peer_addr().ok()) {
        (Some(peer), Some(found)) => (peer == found).then(|| TcpInfo::of(&socket)),
        (None, None) => {
            let is_inet = socket.local_addr().is_ok();
            let info = is_inet.then(|| TcpInfo::of(&socket));
            info.filter(|info| info.state == SYN_SENT)
        }
        _ => None,
    })
}

/// Lets the kernel drop every segment to a socket that is longer than this, as if the network had lost it. Sockets
/// that a listener accepts inherit it.
pub fn lose(socket: &impl AsRawFd, longer_than: u32) {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    /* BPF_LD | BPF_W | BPF_LEN, BPF_JMP | BPF_JGT, and twice BPF_RET: how many bytes to keep. */
    let mut steps = [
        step(0x80, 0, 0, 0),
        step(0x25, 0, 1, longer_than),
        step(0x06, 0, 0, 0),
        step(0x06, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: steps.as_mut_ptr(),
    };
    set_option(socket, libc::SO_ATTACH_FILTER, &program);
}

/// Lets a socket get what is sent to it again.
pub fn lose_nothing(socket: &impl AsRawFd) {
    set_option(socket, libc::SO_DETACH_FILTER, &0_i32);
}

fn set_option<T>(socket: &impl AsRawFd, option: i32, value: &T) {
    let size = u32::try_from(size_of::<T>()).unwrap();
    let fd = socket.as_raw_fd();
    // SAFETY: the descriptor belongs to the socket, and the value has the type and the size of the option.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
