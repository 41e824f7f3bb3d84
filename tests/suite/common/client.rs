// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that sends given bytes, and reads whole responses.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// A stream socket that is read and written.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// Makes a connection end with a reset when its last descriptor is closed, whatever the other side
/// has not read yet.
pub fn reset(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let size = u32::try_from(size_of_val(&linger)).unwrap();
    // SAFETY: the descriptor belongs to the stream, and the option is a struct linger of that size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(result, 0);
}

/// A client connection.
pub struct Client(BufReader<Box<dyn Stream>>);

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u32,
    /// The lines of the header.
    pub header: String,
    /// The body. Chunks are joined.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects to a port of 127.0.0.1.
    pub fn connect(port: u16) -> Self {
        Self::to(([127, 0, 0, 1], port).into())
    }

    /// Uses an existing connection.
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self(BufReader::new(stream))
    }

    /// Connects to an address.
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    /// Connects to a unix socket.
    pub fn to_path(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(Box::new(stream)))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends bytes. Returns whether the other side has not closed meanwhile.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Reads one response. `head`: it answers a HEAD request.
    pub fn receive_to(&mut self, head: bool) -> Response {
        loop {
            let response = self.receive_any(head);
            if response.status >= 200 {
                return response;
            }
        }
    }

    /// Reads one response with its body.
    pub fn receive(&mut self) -> Response {
        self.receive_to(false)
    }

    /// Sends a GET request and reads its response.
    pub fn get(&mut self, uri: &str) -> Response {
        self.send(format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.receive()
    }

    /// Reads until the other side closes the connection, in whatever way.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut bytes) {
            let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!is_late, "the other side has not closed");
        }
        bytes
    }

    /// Reads what has arrived, at least one byte.
    pub fn some(&mut self) -> Vec<u8> {
        let bytes = self.0.fill_buf().unwrap().to_vec();
        assert!(!bytes.is_empty(), "the other side has closed");
        self.0.consume(bytes.len());
        bytes
    }

    /// Reads one response, interim or final.
    fn receive_any(&mut self, head: bool) -> Response {
        let status_line = self.line();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("no status: {status_line:.80?}"));
        let mut lines = String::new();
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            lines += &format!("{line}\n");
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = Some(value.parse().unwrap());
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut body = Vec::new();
        if head || status < 200 || status == 304 || status == 204 {
        } else if chunked {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).unwrap();
                if size == 0 {
                    /* The trailers, and an empty line. */
                    while !self.line().is_empty() {}
                    break;
                }
                self.take(size, &mut body);
                self.line();
            }
        } else if let Some(length) = length {
            self.take(length, &mut body);
        } else {
            self.0.read_to_end(&mut body).unwrap();
        }
        Response {
            status,
            header: lines,
            body,
        }
    }

    /// Reads one line, and returns it without its end.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Reads this number of bytes.
    fn take(&mut self, size: usize, body: &mut Vec<u8>) {
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).unwrap();
        body.append(&mut bytes);
    }
}
