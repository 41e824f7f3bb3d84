// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to the server of metrics, which never blocks.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;

use super::http::Answer;
use super::http::HEADER_BYTES;
use super::http::end_of_header;

/// The time limit for reading a request, and again for sending the answer.
pub const TIME: Duration = Duration::from_secs(2);

/// One connection, which serves one request.
pub struct Client {
    /// The socket, which never blocks.
    pub stream: TcpStream,
    pub state: ClientState,
    /// The time at which it is closed if it makes no progress.
    pub deadline: Instant,
}

/// The progress of a connection.
pub enum ClientState {
    /// The header is being received. This is its beginning so far.
    Reading(Vec<u8>),
    /// The answer is being sent.
    Writing(Answer),
    /// All is sent, and the client has to close the connection.
    Closing,
}

/// The result of reading or writing.
pub enum Progress {
    /// The socket has no more data or room now.
    Blocked,
    /// The client has closed the connection.
    Closed,
    /// Everything was read or written.
    Done,
}

impl Client {
    /// Creates a client that has sent nothing yet.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            state: ClientState::Reading(Vec::new()),
            deadline: Instant::now() + TIME,
        }
    }

    /// Returns the event that it waits for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let flags = match self.state {
            ClientState::Writing(_) => PollFlags::OUT,
            ClientState::Reading(_) | ClientState::Closing => PollFlags::IN,
        };
        PollFd::new(&self.stream, flags)
    }
}

/// Reads until the empty line after the header, or until there are more bytes than a header may
/// have.
pub fn read(stream: &mut TcpStream, header: &mut Vec<u8>) -> io::Result<Progress> {
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(Progress::Closed),
            Ok(len) => header.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Progress::Blocked);
            }
            Err(error) => return Err(error),
        }
        if header.len() > HEADER_BYTES || end_of_header(header).is_some() {
            return Ok(Progress::Done);
        }
    }
}

impl Answer {
    /// Sends as many bytes as the socket takes.
    pub fn write(&mut self, stream: &mut TcpStream) -> io::Result<Progress> {
        loop {
            let [header, body] = &self.parts;
            let left = match self.sent.checked_sub(header.len()) {
                None => &header[self.sent..],
                Some(sent) => &body[sent..],
            };
            if left.is_empty() {
                return Ok(Progress::Done);
            }
            match stream.write(left) {
                Ok(0) => return Ok(Progress::Closed),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
