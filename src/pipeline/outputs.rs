// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that takes records: metrics, the receiver of `--otlp`, and a file, stdout or a view.

use std::sync::Arc;

use anyhow::Result;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::Request;

use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::metrics::RequestMetrics;
use crate::pipeline::delivery::Delivery;
use crate::pipeline::delivery::DeliverySettings;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::outcome::Outcome;
use crate::pipeline::records::Consumer;
use crate::pipeline::sink::OutputState;
use crate::pipeline::sink::Sink;

/// Where records go besides metrics.
pub struct Outputs {
    sink: Option<Sink>,
    delivery: Option<DeliverySettings>,
    redaction: Redaction,
}

impl Outputs {
    /// Takes the settings of all of them.
    pub fn new(
        sink: Option<Sink>,
        delivery: Option<DeliverySettings>,
        redaction: Redaction,
    ) -> Self {
        Self {
            sink,
            delivery,
            redaction,
        }
    }

    /// Returns whether records are sent to a receiver.
    pub fn has_receiver(&self) -> bool {
        self.delivery.is_some()
    }

    /// Returns whether a file is opened, and opened again.
    pub fn has_file(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::is_file)
    }

    /// Opens them. Returns the consumers of records. Metrics see a request as it was, and the others without its
    /// secrets. The sink comes last, because it changes the requests, and because it reports what the receiver loses at
    /// the end.
    pub fn open(
        self,
        metrics: Option<RequestMetrics>,
        signals: &Signals,
        ledger: &Arc<Ledger>,
        messages: Messages,
    ) -> Result<(Vec<Box<dyn Consumer>>, OutputState)> {
        if self.sink.is_some() && self.delivery.is_some() {
            ledger.outcomes().into_iter().for_each(Outcome::join);
        }
        let mut consumers: Vec<Box<dyn Consumer>> = Vec::new();
        if let Some(metrics) = metrics {
            consumers.push(Box::new(metrics));
        }
        consumers.push(Box::new(self.redaction));
        if let Some(settings) = self.delivery {
            consumers.push(Box::new(Delivery::start(settings, ledger, messages)?));
        }
        let mut state = OutputState::default();
        if let Some(sink) = self.sink {
            let (sink, its_state) = sink.open(signals, ledger, messages)?;
            consumers.push(sink);
            state = its_state;
        }
        Ok((consumers, state))
    }
}

impl Consumer for Redaction {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        self.apply(request);
        Ok(())
    }
}

impl Consumer for RequestMetrics {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        self.observe(request);
        Ok(())
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) -> Result<()> {
        Self::blocked(self, blocked);
        Ok(())
    }

    fn connection(&mut self, connection: &mut Connection<'_>) -> Result<()> {
        Self::connection(self, connection);
        Ok(())
    }

    fn tick(&mut self) {
        Self::tick(self);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use ngx_bpf_record::Record;
    use ngx_bpf_record::Redaction;
    use ngx_bpf_record::Request;

    use super::Outputs;
    use crate::host::signals::Signals;
    use crate::host::stderr::Messages;
    use crate::host::stderr::Verbosity;
    use crate::pipeline::ledger::Ledger;
    use crate::pipeline::sink::Sink;

    /// Check that a request has lost its secrets before an output takes it.
    #[test]
    fn redacted() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let view = move |record: &Record<'_>| {
            let Record::Request(request) = record else {
                panic!("{record:?}");
            };
            let uri = request.request_uri.as_deref().map(str::to_owned);
            to.lock().unwrap().push(uri);
        };
        let outputs = Outputs::new(Some(Sink::View(Box::new(view))), None, Redaction::Query);
        let (mut consumers, _) = outputs
            .open(
                None,
                &Signals::default(),
                &Arc::new(Ledger::default()),
                Messages::new(Verbosity::Quiet),
            )
            .unwrap();
        let mut request = Request {
            request_uri: Some("/a?b=secret".into()),
            ..Default::default()
        };
        for consumer in &mut consumers {
            consumer.request(&mut request).unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [Some("/a".to_owned())]);
    }
}
