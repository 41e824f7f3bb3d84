// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that are written and read byte by byte.

use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

use crate::common::PATIENCE;
use crate::common::client::reset;

/// A connection whose bytes are not understood.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn connect(port: u16) -> Self {
        Self::new(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Several connections.
    pub fn several(port: u16, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::connect(port)).collect()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads this number of bytes.
    pub fn take(&mut self, count: usize) {
        self.0.read_exact(&mut vec![0; count]).unwrap();
    }

    /// Reads until these bytes have come, which are the last ones so far.
    pub fn take_until(&mut self, end: &[u8]) {
        let mut bytes = Vec::new();
        let mut part = [0; 16384];
        while !bytes.ends_with(end) {
            let n = self.0.read(&mut part).unwrap();
            assert!(n > 0, "the other side has closed");
            bytes.extend(&part[..n]);
        }
    }

    /// Reads what is there.
    pub fn drain(&mut self) {
        self.0.set_nonblocking(true).unwrap();
        let mut part = [0; 65536];
        loop {
            match self.0.read(&mut part) {
                Ok(0) => panic!("the other side has closed"),
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.0.set_nonblocking(false).unwrap();
    }

    /// Reads until the other side closes.
    pub fn rest(mut self) {
        let _ = self.0.read_to_end(&mut Vec::new());
    }

    /// Closes the connection with a reset, so that its port is free at once.
    pub fn close(self) {
        reset(&self.0);
    }
}
