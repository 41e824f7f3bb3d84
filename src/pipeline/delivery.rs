// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that sends records to the receiver of `--otlp`: requests as spans, and all records as log records.

use std::env;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Request;
use ngx_bpf_record::format::conventions::KNOWN_METHODS_VARIABLE;
use ngx_bpf_record::format::otlp::Logs;
use ngx_bpf_record::format::otlp::Traces;
use ngx_bpf_record::values::Cause;

use crate::counts::Counts;
use crate::decode::clock::Clock;
use crate::host::stderr::Messages;
use crate::otlp::Batch;
use crate::otlp::Endpoint;
use crate::otlp::Exporter;
use crate::otlp::Records;
use crate::output;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::messages;
use crate::pipeline::outcome::Fate;
use crate::pipeline::outcome::Taker;
use crate::pipeline::records::Consumer;

/// The bytes from which on a batch is sent.
const BATCH_BYTES: usize = 1 << 20;

/// The time after which a batch is sent in any case.
const BATCH_TIME: Duration = Duration::from_secs(1);

/// Where records are sent, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverySettings {
    pub endpoint: Endpoint,
    /// `service.name`. `None`: that of a request is its `server_name`.
    pub service: Option<String>,
}

/// Numbers of lost requests, of each cause.
type Reported = [AtomicU64; Cause::ALL.len()];

/// Sends records.
pub struct Delivery {
    /// What is collected. `None`: it is not sent.
    traces: Option<Traces>,
    logs: Option<Logs>,
    /// The records in it.
    records: Records,
    /// When the first of them came.
    begun: Option<Instant>,
    exporter: Exporter,
    ledger: Arc<Ledger>,
    /// The losses that were sent or wait for it. Those that the receiver has not taken are taken back.
    reported: Arc<Reported>,
    messages: Messages,
}

impl Delivery {
    /// Starts the thread that sends. Fails when the name of the receiver can't be resolved.
    pub fn start(
        settings: DeliverySettings,
        ledger: &Arc<Ledger>,
        messages: Messages,
    ) -> Result<Self> {
        let DeliverySettings { endpoint, service } = settings;
        let identity = output::identity(service);
        let known_methods = env::var(KNOWN_METHODS_VARIABLE).ok();
        let traces = endpoint.traces().map(|_| {
            let (identity, known_methods) = (identity.clone(), known_methods.clone());
            Traces::new(identity, known_methods)
        });
        let logs = endpoint.logs().map(|_| Logs::new(identity, known_methods));
        let reported = Arc::<Reported>::default();
        let (counts, its_reported) = (Arc::clone(ledger), Arc::clone(&reported));
        let outcome = move |taken: Records, lost: Records| {
            for (fate, records) in [(Fate::Written, taken), (Fate::Unsent, lost)] {
                let numbers = [records.requests, records.connections, records.blocked];
                for (outcome, count) in counts.outcomes().into_iter().zip(numbers) {
                    outcome.resolve(Taker::Receiver, fate, count);
                }
            }
            for (reported, count) in its_reported.iter().zip(lost.losses) {
                reported.fetch_sub(count, Ordering::Relaxed);
            }
        };
        Ok(Self {
            traces,
            logs,
            records: Records::default(),
            begun: None,
            exporter: Exporter::start(endpoint, Box::new(outcome), messages)?,
            ledger: Arc::clone(ledger),
            reported,
            messages,
        })
    }

    /// Notes that these records were added, and sends the batch when it is long enough.
    fn added(&mut self, records: Records) {
        self.records += records;
        self.begun.get_or_insert_with(Instant::now);
        let of_traces = self.traces.as_ref().map_or(0, Traces::bytes);
        let of_logs = self.logs.as_ref().map_or(0, Logs::bytes);
        if of_traces + of_logs >= BATCH_BYTES {
            self.send();
        }
    }

    /// Sends what was collected.
    fn send(&mut self) {
        let mut batch = Batch {
            records: std::mem::take(&mut self.records),
            ..Batch::default()
        };
        if let Some(traces) = &mut self.traces {
            traces.write_line(&mut batch.traces);
        }
        if let Some(logs) = &mut self.logs {
            logs.write_line(&mut batch.logs);
        }
        if self.begun.take().is_some() {
            self.exporter.send(batch);
        }
    }

    /// Adds new losses.
    fn report_losses(&mut self) -> Result<()> {
        let Some(logs) = self.logs.as_mut().filter(|_| !self.ledger.has_ended()) else {
            return Ok(());
        };
        let mut has_added = false;
        let before = Counts {
            lost: self
                .reported
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed)),
            ..Counts::default()
        };
        for (cause, count) in self.ledger.counts().since(&before) {
            let time = Clock::wall_now();
            logs.lost(&Lost { time, count, cause })?;
            self.reported[cause as usize].fetch_add(count, Ordering::Relaxed);
            self.records.losses[cause as usize] += count;
            has_added = true;
        }
        if has_added {
            self.added(Records::default());
        }
        Ok(())
    }
}

impl Consumer for Delivery {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        let traces = self.traces.as_mut();
        let span = traces
            .map(|traces| traces.add(request))
            .transpose()?
            .flatten();
        if let Some(logs) = &mut self.logs {
            logs.request(request, span)?;
        }
        self.added(Records {
            requests: 1,
            ..Records::default()
        });
        Ok(())
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) -> Result<()> {
        if let Some(logs) = &mut self.logs {
            logs.blocked(blocked)?;
        }
        self.added(Records {
            blocked: 1,
            ..Records::default()
        });
        Ok(())
    }

    fn connection(&mut self, connection: &mut Connection<'_>) -> Result<()> {
        if let Some(logs) = &mut self.logs {
            logs.connection(connection)?;
        }
        self.added(Records {
            connections: 1,
            ..Records::default()
        });
        Ok(())
    }

    fn tick(&mut self) {
        if let Err(error) = self.report_losses() {
            self.messages.warn(&error);
        }
        if self
            .begun
            .is_some_and(|begun| begun.elapsed() >= BATCH_TIME)
        {
            self.send();
        }
    }

    fn finish(&mut self) {
        if let Err(error) = self.report_losses() {
            self.messages.warn(&error);
        }
        self.send();
        let is_failing = !self.exporter.finish();
        let failing = &self.ledger.is_receiver_failing;
        failing.store(is_failing, Ordering::Relaxed);
        if is_failing {
            let unsent = self
                .ledger
                .outcomes()
                .map(|outcome| outcome.unsent.load(Ordering::Relaxed));
            messages::unsent(self.messages, unsent.into_iter().sum());
        }
    }
}
