// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that shows records instead of writing them.

use std::mem;
use std::sync::Arc;

use anyhow::Result;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;

use crate::counts::Counts;
use crate::decode::clock::Clock;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::records::Consumer;

/// What takes each record, also those of losses.
pub type View = Box<dyn FnMut(&Record<'_>) + Send>;

/// Passes records to a view. What it has taken counts as written.
pub struct Shown {
    view: View,
    /// The counts of requests.
    ledger: Arc<Ledger>,
    /// The losses that the view knows.
    reported: Counts,
}

impl Shown {
    /// Creates the consumer.
    pub fn new(view: View, ledger: &Arc<Ledger>) -> Self {
        Self {
            view,
            ledger: Arc::clone(ledger),
            reported: Counts::default(),
        }
    }

    /// Passes new losses on.
    fn report_losses(&mut self) {
        let (counts, reported) = (self.ledger.counts(), self.reported);
        for (cause, count) in counts.since(&reported) {
            let time = Clock::wall_now();
            (self.view)(&Record::Lost(Lost { time, count, cause }));
            self.reported.lost[cause as usize] += count;
        }
    }
}

impl Consumer for Shown {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        (self.view)(&Record::Request(Box::new(mem::take(request))));
        add(&self.ledger.requests.written, 1);
        Ok(())
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) -> Result<()> {
        (self.view)(&Record::Blocked(Box::new(mem::take(blocked))));
        add(&self.ledger.blocked.written, 1);
        Ok(())
    }

    fn connection(&mut self, connection: &mut Connection<'_>) -> Result<()> {
        (self.view)(&Record::Connection(Box::new(mem::take(connection))));
        add(&self.ledger.connections.written, 1);
        Ok(())
    }

    fn tick(&mut self) {
        self.report_losses();
    }

    fn finish(&mut self) {
        self.report_losses();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;

    use ngx_bpf_record::Connection;
    use ngx_bpf_record::Record;
    use ngx_bpf_record::Request;

    use super::Shown;
    use crate::pipeline::ledger::Ledger;
    use crate::pipeline::ledger::add;
    use crate::pipeline::records::Consumer as _;

    /// Check that a view gets every kind of record, and each loss once.
    #[test]
    fn all() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ledger = Arc::new(Ledger::default());
        let to = Arc::clone(&seen);
        let view = move |record: &Record<'_>| {
            to.lock().unwrap().push(match record {
                Record::Request(request) => format!("{:?}", request.request_uri.as_deref()),
                Record::Lost(lost) => format!("lost {}", lost.count),
                Record::Connection(_) => "connection".to_owned(),
                Record::Blocked(_) => "blocked".to_owned(),
            });
        };
        let mut shown = Shown::new(Box::new(view), &ledger);
        let mut request = Request {
            request_uri: Some("/a".into()),
            ..Default::default()
        };
        shown.request(&mut request).unwrap();
        shown.connection(&mut Connection::default()).unwrap();
        add(&ledger.bad_records, 2);
        shown.tick();
        shown.tick();
        shown.finish();
        let expected = ["Some(\"/a\")", "connection", "lost 2"];
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(ledger.requests.written.load(Ordering::Relaxed), 1);
    }
}
