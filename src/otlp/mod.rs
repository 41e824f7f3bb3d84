// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends batches to a receiver of OTLP by HTTP/1.1. A thread of its own does that, so that tracing never waits for it;
//! what it can't send in time is dropped and counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;

use crate::host::privileges;
use crate::host::stderr::Messages;
use http::Connection;
use queue::Queue;
use sender::Sender;

pub use batch::Batch;
pub use batch::Outcome;
pub use batch::Records;
pub use endpoint::Endpoint;

mod batch;
mod endpoint;
mod http;
mod queue;
mod sender;

/// How long the end waits at most until the last batches are sent. Those that are left then are lost.
const END: Duration = Duration::from_secs(5);

/// The thread that sends batches.
pub struct Exporter {
    queue: Arc<Queue>,
}

impl Exporter {
    /// Resolves the name of the receiver, and starts the thread. The name is not resolved again, since the process
    /// gives up the system calls for that. Nothing is sent yet: a receiver that is down is tried again.
    ///
    /// Fails when the name has no address.
    pub fn start(endpoint: Endpoint, outcome: Outcome, messages: Messages) -> Result<Self> {
        let addresses: Vec<SocketAddr> = endpoint
            .resolve()
            .and_then(|found| match found.is_empty() {
                true => Err(io::Error::other("the name has no address")),
                false => Ok(found),
            })
            .with_context(|| format!("failed to resolve the host of --otlp {endpoint}"))?;
        let queue = Arc::new(Queue::new(outcome));
        let sender = Sender::new(
            Connection::new(addresses, endpoint.authority()),
            endpoint,
            Arc::clone(&queue),
            messages,
        );
        thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                privileges::drop_all();
                sender.run();
            })
            .context("failed to start a thread")?;
        Ok(Self { queue })
    }

    /// Queues a batch. If there is no room for it, it is lost.
    pub fn send(&self, batch: Batch) {
        self.queue.push(batch);
    }

    /// Sends what is queued, and returns when that is done, at the latest after the time of `END`. Returns false when
    /// the receiver has not taken the last ones.
    pub fn finish(&self) -> bool {
        self.queue.finish(END)
    }
}

#[cfg(test)]
mod tests;
