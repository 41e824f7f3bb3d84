// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether nginx has handled what it was sent before.

use crate::common::client::Client;

/// A connection on which nginx is asked. nginx handles events in the order in which they came.
pub struct Idle(Client);

impl Idle {
    pub fn new(port: u16) -> Self {
        Self(Client::connect(port))
    }

    /// Waits until nginx has handled everything before this.
    pub fn wait(&mut self) {
        assert_eq!(self.0.get("/").status, 200);
    }
}
