// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frame of a server that a test writes itself.

use std::io;
use std::io::Read;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::thread;

/// Serves connections to a free port of 127.0.0.1, one after the other. Returns the port. The thread
/// ends with the test process.
pub fn listen(serve: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

/// A server that answers no connect: as many connections wait for it as may.
pub struct FullListener {
    pub port: u16,
    _listener: TcpListener,
    _waiting: TcpStream,
}

impl FullListener {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // SAFETY: the descriptor is a listening socket. From here on one connection may wait.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        Self {
            port,
            _waiting: TcpStream::connect(("127.0.0.1", port)).unwrap(),
            _listener: listener,
        }
    }
}

/// Reads the header of a request, up to its empty line, and no byte of what follows.
pub fn read_head(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}
