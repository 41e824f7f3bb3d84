// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that speaks HTTP/3: aioquic, controlled step by step.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;

use super::PATIENCE;
use super::build::HTTP3;
use super::build::is_built_without;
use super::build::kept;
use super::lines;

/// The client. Its file describes the commands.
const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/http3.py");

/// The frame types HEADERS and DATA.
const HEADERS: u8 = 1;
const DATA: u8 = 0;

/// Returns whether tests of HTTP/3 can't run with this nginx on this machine, and then prints SKIP.
pub fn is_missing() -> bool {
    is_built_without(HTTP3) || kept("aioquic/bin/python").is_none()
}

/// A connection.
pub struct Http3 {
    child: Child,
    commands: Option<ChildStdin>,
    said: Receiver<String>,
}

impl Http3 {
    pub fn connect(port: u16) -> Self {
        Self::start(port, &[])
    }

    /// Connects once for a session ticket, and then again. Requests on the second connection are
    /// sent before the handshake.
    pub fn connect_early(port: u16) -> Self {
        Self::start(port, &["early"])
    }

    /// Connects, and never takes more than 16 KiB of a response.
    pub fn connect_narrow(port: u16) -> Self {
        Self::start(port, &["narrow"])
    }

    /// Asserts that the server accepted the bytes that were sent before the handshake.
    pub fn assert_early(&mut self) {
        self.command("early");
    }

    /// Starts the client.
    fn start(port: u16, args: &[&str]) -> Self {
        let mut child = Command::new(kept("aioquic/bin/python").unwrap())
            .args([CLIENT, &port.to_string()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let http = Self {
            commands: child.stdin.take(),
            said: lines(child.stdout.take().unwrap()),
            child,
        };
        http.wait_done("connect");
        http
    }

    /// Waits until the client has finished a command.
    fn wait_done(&self, command: &str) {
        assert_eq!(self.said.recv_timeout(PATIENCE).unwrap(), "ok", "{command}");
    }

    /// Sends a command to the client, and waits until it has finished.
    fn command(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        self.wait_done(command);
    }

    /// Sends bytes of a stream. `last` ends the stream.
    pub fn send(&mut self, stream: u64, bytes: &[u8], last: bool) {
        let command = if last { "last" } else { "send" };
        self.command(&format!("{command} {stream} {}", hex(bytes)));
    }

    /// Sends a request without a body.
    pub fn get(&mut self, stream: u64, path: &str) {
        self.send(stream, &header("GET", path), true);
    }

    /// Sends a request without a body, and then neither reads nor acknowledges anything for this
    /// number of milliseconds.
    pub fn get_deaf(&mut self, stream: u64, path: &str, ms: u64) {
        let bytes = hex(&header("GET", path));
        self.command(&format!("deaf {stream} {bytes} {ms}"));
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: u64) {
        self.command(&format!("reset {stream}"));
    }

    /// Waits for bytes of a response.
    pub fn receive_some(&mut self, stream: u64) {
        self.command(&format!("some {stream}"));
    }

    /// Waits for the ends of responses.
    pub fn receive(&mut self, streams: impl IntoIterator<Item = u64>) {
        for stream in streams {
            self.command(&format!("end {stream}"));
        }
    }

    pub fn close(mut self) {
        drop(self.commands.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Http3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns bytes in the form that commands have.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Returns the header of a request.
pub fn header(method: &str, path: &str) -> Vec<u8> {
    header_with(method, path, &[])
}

/// Returns the header of a request with more fields. Required fields are encoded by their index in
/// QPACK's static table, all others literally.
pub fn header_with(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let method = match method {
        "GET" => 0xc0 | 17,
        "POST" => 0xc0 | 20,
        _ => unreachable!(),
    };
    let https = 0xc0 | 23;
    let mut fields = vec![0, 0, method, https];
    for (name, value) in [(0, "test"), (1, path)] {
        fields.extend([0x50 | name, u8::try_from(value.len()).unwrap()]);
        fields.extend(value.as_bytes());
    }
    for (name, value) in more {
        /* The first byte holds as much of the name's length as three bits can. */
        fields.extend([0x27, u8::try_from(name.len() - 7).unwrap()]);
        fields.extend(name.as_bytes());
        fields.push(u8::try_from(value.len()).unwrap());
        fields.extend(value.as_bytes());
    }
    frame(HEADERS, &fields)
}

/// Returns a part of a body.
pub fn body(bytes: &[u8]) -> Vec<u8> {
    frame(DATA, bytes)
}

/// Returns a frame of less than 16 KiB, whose length takes two bytes.
fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    assert!(bytes.len() < 1 << 14);
    frame.extend((u16::try_from(bytes.len()).unwrap() | 1 << 14).to_be_bytes());
    frame.extend(bytes);
    frame
}
