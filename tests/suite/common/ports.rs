// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports on which an nginx of a test may listen.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;

/// The ports that are given out. The kernel gives others to clients (32768 and up), of which one may
/// be in use by the time nginx binds it.
const PORTS: Range<u16> = 10_000..32_000;

/// The number of ports that a process takes at once.
const BLOCK: u16 = 250;

/// Ports that no other process of the suite in this network namespace gives out while this one
/// runs: the name of the socket is the reservation.
struct Block {
    left: Range<u16>,
    _reservation: UnixListener,
}

impl Block {
    /// Takes a block that no other process has.
    fn take() -> Option<Self> {
        PORTS.step_by(BLOCK.into()).find_map(|first| {
            let name = format!("ngx-bpf-test-ports-{first}");
            let address = SocketAddr::from_abstract_name(name).unwrap();
            Some(Self {
                left: first..first + BLOCK,
                _reservation: UnixListener::bind_addr(&address).ok()?,
            })
        })
    }
}

/// The blocks of this process. It gives out ports of the last one.
static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// Returns a port of 127.0.0.1 and [::1] without a listener, another one each time.
pub fn free_port() -> u16 {
    let mut blocks = BLOCKS.lock().unwrap();
    let is_free = |host, port| TcpListener::bind((host, port)).is_ok();
    loop {
        let left = blocks.last_mut().and_then(|block| block.left.next());
        match left {
            Some(port) if is_free("127.0.0.1", port) && is_free("::1", port) => return port,
            Some(_) => {}
            None => blocks.push(Block::take().expect("a block of ports is free")),
        }
    }
}

/// Check that two ports differ, and that what reserves them is seen by other processes.
#[test]
fn reserved() {
    let port = free_port();
    assert_ne!(port, free_port());
    let first = port - (port - PORTS.start) % BLOCK;
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let name = format!("@ngx-bpf-test-ports-{first}");
    assert!(sockets.lines().any(|line| line.ends_with(&name)), "{name}");
}
