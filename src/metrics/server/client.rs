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

/// The time limit for a request, and then for reading the answer.
pub const TIME: Duration = Duration::from_secs(2);

/// One connection, for one request.
pub struct Client {
    /// Never blocks.
    pub stream: TcpStream,
    /// Its progress.
    pub state: ClientState,
    /// When it is closed if it makes no progress.
    pub deadline: Instant,
}

/// The progress of a connection.
pub enum ClientState {
    /// The part of the header that has come.
    Reading(Vec<u8>),
    /// The answer, of which a part may be sent.
    Writing(Answer),
    /// All is sent, and the client has to close.
    Closing,
}

/// The result of reading or writing.
pub enum Progress {
    /// There is more to do later.
    Blocked,
    /// The other side has gone.
    Closed,
    /// Everything was read or written.
    Done,
}

impl Client {
    /// Makes a connection that has sent nothing yet.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            state: ClientState::Reading(Vec::new()),
            deadline: Instant::now() + TIME,
        }
    }

    /// Returns what it waits for.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let flags = match self.state {
            ClientState::Writing(_) => PollFlags::OUT,
            ClientState::Reading(_) | ClientState::Closing => PollFlags::IN,
        };
        PollFd::new(&self.stream, flags)
    }
}

/// Reads up to the empty line, or to more than a header may have.
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
    /// Sends as much as goes.
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
