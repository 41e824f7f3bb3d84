// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that ended without a request (`--connections`), and workers that were blocked (`--blocked`).

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::values::BlockPart;
use ngx_bpf_record::values::ConnectionEnd;

use super::buckets::own_histograms;
use super::exposition::Counter;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::labels::NONE;

/// The metrics of connections and workers.
pub struct ConnectionMetrics {
    /// The number of connections, by how far they had come and how they ended.
    ended: Family<Counter>,
    /// How long workers were blocked, by what they did in the longest part.
    blocked: Family<Histogram>,
}

impl ConnectionMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            ended: Family::default(),
            blocked: own_histograms(),
        };
        registry.register(
            "nginx_connections_ended",
            "Connections that ended without a request, or while they waited for their next one",
            &metrics.ended,
        );
        registry.register(
            "nginx_worker_blocked_seconds",
            "How long workers did not come back to their event loop",
            &metrics.blocked,
        );
        metrics
    }

    /// Counts a connection.
    pub fn ended(&self, connection: &Connection<'_>) {
        let end = connection.end.map_or(NONE, ConnectionEnd::name);
        let labels = vec![
            ("stage", connection.stage.name().to_owned()),
            ("end", end.to_owned()),
        ];
        self.ended.with(&labels).inc();
    }

    /// Measures a worker that was blocked.
    pub fn blocked(&self, blocked: &Blocked<'_>) {
        let part = blocked.longest_part.map_or(NONE, BlockPart::name);
        let labels = vec![("longest_part", part.to_owned())];
        self.blocked
            .with(&labels)
            .observe(blocked.duration_ns, None);
    }
}
