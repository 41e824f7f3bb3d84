// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real server as nginx's upstream. It is started for one test, and ends with it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;

use super::PATIENCE;
use super::lines;
use super::program::open_to_all;
use super::wait_until;

/// A running server.
pub struct Server {
    child: Child,
    /// Lines of its stdout.
    stdout: Receiver<String>,
}

impl Server {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("servers are installed by make test");
        let stdout = lines(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Starts a server, and waits until it listens at a path.
    pub fn at(path: &Path, command: &mut Command) -> Self {
        let server = Self::start(command);
        wait_until(&format!("no server listens at {}", path.display()), || {
            UnixStream::connect(path).is_ok()
        });
        open_to_all(path);
        server
    }

    /// Returns the next line that it prints.
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
