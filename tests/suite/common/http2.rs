// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client and a small server that speak HTTP/2 frame by frame. Headers are not compressed.

use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;

use super::client::Stream;

/// Types of frames that the tests send or expect (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PRIORITY: u8 = 32;

/// `SETTINGS_INITIAL_WINDOW_SIZE`
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The first bytes that a client sends.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection.
pub struct Http2(Box<dyn Stream>);

impl Http2 {
    /// Sends the preface and a window for each stream, and waits for the answer.
    pub fn start(mut stream: Box<dyn Stream>, window: u32) -> Self {
        stream.write_all(&hello(window)).unwrap();
        let mut http = Self(stream);
        /*
         * nginx since 1.25.1 recognises HTTP/2 with the first read, so the following bytes must be
         * a read of their own.
         */
        while http.next().0 != SETTINGS {}
        http
    }

    pub fn send(&mut self, frames: &[u8]) {
        self.0.write_all(frames).unwrap();
    }

    /// Reads until all these streams have ended.
    pub fn receive(&mut self, streams: impl IntoIterator<Item = u32>) {
        let mut open: BTreeSet<u32> = streams.into_iter().collect();
        while !open.is_empty() {
            let (kind, flags, stream) = self.next();
            let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            if ends || kind == RST_STREAM {
                open.remove(&stream);
            }
        }
    }

    /// Waits until the server has handled what was sent before. Drops what has arrived by then.
    pub fn ping(&mut self) {
        self.send(&ping());
        while !matches!(self.next(), (PING, ACK, _)) {}
    }

    /// Reads until a part of a body has arrived.
    pub fn receive_some(&mut self) {
        while self.next().0 != DATA {}
    }

    /// Reads one frame.
    fn next(&mut self) -> (u8, u8, u32) {
        self.try_next().unwrap()
    }

    /// Reads one frame, and acknowledges it when that is required.
    fn try_next(&mut self) -> std::io::Result<(u8, u8, u32)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        if kind == SETTINGS && flags & ACK == 0 {
            self.send(&frame(SETTINGS, ACK, 0, &[]));
        }
        Ok((kind, flags, u32::from_be_bytes(stream)))
    }
}

/// A server that waits for a request and answers with these frames: type, flags, whether the frame
/// belongs to the request's stream or to stream 0, and payload.
#[derive(Clone, Copy)]
pub struct Frames(pub &'static [(u8, u8, bool, &'static [u8])]);

impl Frames {
    /// A header, after which a body is expected.
    pub const HALF: (u8, u8, bool, &'static [u8]) = (HEADERS, END_HEADERS, true, &[0x88]);
    /// A part of a body.
    pub const PIECE: (u8, u8, bool, &'static [u8]) = (DATA, 0, true, b"hello");
    /// A part of a body that needs several of nginx's buffers.
    pub const LONG: (u8, u8, bool, &'static [u8]) = (DATA, 0, true, &[b'x'; 16384]);
    /// The server resets the stream: INTERNAL_ERROR.
    pub const RESET: (u8, u8, bool, &'static [u8]) = (RST_STREAM, 0, true, &[0, 0, 0, 2]);
    /// The server ends the connection, and has served no stream.
    pub const GOAWAY: (u8, u8, bool, &'static [u8]) = (7, 0, false, &[0, 0, 0, 0, 0, 0, 0, 2]);
    /// A frame that is not allowed there.
    pub const BROKEN: (u8, u8, bool, &'static [u8]) = (SETTINGS, 0, false, &[0; 5]);

    /// Answers `answered` requests correctly, then reads another one and sends the frames.
    pub fn serve(&self, stream: Box<dyn Stream>, mut answered: usize) -> std::io::Result<()> {
        let mut http = accept(stream)?;
        loop {
            let (kind, flags, stream) = http.try_next()?;
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                if answered > 0 {
                    answered -= 1;
                    let header = frame(HEADERS, END_HEADERS, stream, &[0x88]);
                    let body = frame(DATA, END_STREAM, stream, b"hello");
                    http.send(&[header, body].concat());
                    continue;
                }
                for (n, (kind, flags, of_stream, payload)) in self.0.iter().enumerate() {
                    /* nginx must read the last frame by itself. */
                    if n > 0 && n + 1 == self.0.len() {
                        super::delay(std::time::Duration::from_millis(100));
                    }
                    let stream = if *of_stream { stream } else { 0 };
                    http.send(&frame(*kind, *flags, stream, payload));
                }
                return Ok(());
            }
        }
    }
}

/// Starts the server's side of a connection on which the client has sent the preface.
fn accept(mut stream: Box<dyn Stream>) -> std::io::Result<Http2> {
    stream.read_exact(&mut PREFACE.clone())?;
    let mut http = Http2(stream);
    http.send(&frame(SETTINGS, 0, 0, &[]));
    Ok(http)
}

/// Answers requests until the client closes. Each response contains a PING, so that the last bytes
/// that the client sends are its acknowledgement.
pub fn serve(stream: Box<dyn Stream>) -> std::io::Result<()> {
    let mut http = accept(stream)?;
    loop {
        let (kind, flags, stream) = http.try_next()?;
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            let header = frame(HEADERS, END_HEADERS, stream, &[0x88]);
            let answer = [header, ping(), frame(DATA, END_STREAM, stream, b"hello")];
            http.send(&answer.concat());
        }
    }
}

/// Returns what a client sends first: the preface, and a window for each stream.
pub fn hello(window: u32) -> Vec<u8> {
    let setting = [
        &INITIAL_WINDOW_SIZE.to_be_bytes()[..],
        &window.to_be_bytes(),
    ];
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &setting.concat()),
        window_update(0, 1 << 30),
    ]
    .concat()
}

/// Returns a frame that the server must answer.
pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

/// The streams that a client opens at the same time. nginx allows 128.
pub const STREAMS: u32 = 100;

/// Returns the numbers of the streams of a connection, step by step.
pub fn streams(step: u32) -> impl Iterator<Item = u32> {
    (step * STREAMS..(step + 1) * STREAMS).map(|n| 2 * n + 1)
}

/// Returns a GET request.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(path))
}

/// Returns a GET request that depends on another stream, whose response then goes first.
pub fn get_after(stream: u32, other: u32, path: &str) -> Vec<u8> {
    let block = [&other.to_be_bytes()[..], &[15], &block(path)].concat();
    frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY, stream, &block)
}

/// Returns a GET request with more header fields, which are already encoded.
pub fn get_with(stream: u32, path: &str, fields: &[u8]) -> Vec<u8> {
    let block = [&block(path), fields].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// Returns a header field that the server must add to its table. Its index is `NEWEST` then.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x40];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).unwrap());
        field.extend(text.as_bytes());
    }
    field
}

/// The index of the header field that was added last.
pub const NEWEST: &[u8] = &[0x80 | 62];

/// Returns a GET request whose header is in two frames.
pub fn get_in_two(stream: u32, path: &str) -> [Vec<u8>; 2] {
    let block = block(path);
    let (first, second) = block.split_at(block.len() / 2);
    [
        frame(HEADERS, END_STREAM, stream, first),
        frame(CONTINUATION, END_HEADERS, stream, second),
    ]
}

/// Returns a POST request without its body.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    post_with(stream, path, &[])
}

/// Returns a POST request with more header fields, which are already encoded.
pub fn post_with(stream: u32, path: &str, fields: &[u8]) -> Vec<u8> {
    let mut block = [&block(path), fields].concat();
    block[0] = 0x83;
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Returns a CONNECT request, which has no path (RFC 9113, section 8.5); with a path it is
/// malformed.
pub fn connect(stream: u32, path: Option<&str>) -> Vec<u8> {
    let rest = path.map_or(vec![0x01, 1, b't'], |path| block(path)[1..].to_vec());
    let block = [b"\x02\x07CONNECT".to_vec(), rest].concat();
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Returns a part of a body that is not the last one.
pub fn piece(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, bytes)
}

/// Returns a whole body, or its last part.
pub fn body(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, bytes)
}

/// Returns a frame that opens the window of a stream.
pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// Returns a frame that resets a stream.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// Returns the encoded `:method: GET`, `:scheme: http`, `:path`, `:authority: t` (RFC 7541,
/// appendix A).
fn block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    assert!(path.len() < 127);
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b't']);
    block
}

/// Returns a frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
