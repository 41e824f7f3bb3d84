// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of the tool itself: its losses, its CPU and memory, and what it traces.

use super::exposition::Counter;
use super::exposition::Family;
use super::exposition::Gauge;
use super::exposition::Registry;
use super::exposition::Seconds;
use crate::counts::Counts;
use crate::host::usage::Usage;

/// The metrics of the tool itself.
#[derive(Default)]
pub struct OwnMetrics {
    /// The number of requests that ended.
    seen: Counter,
    /// The number of requests written.
    written: Counter,
    /// The number of requests that an option left out.
    filtered: Counter,
    /// The number of TLS handshakes of clients that failed.
    failed_handshakes: Counter,
    /// The number of connections that ended without a request, of their records that were written, and of those that
    /// were lost.
    connections: [Counter; 3],
    /// The number of records of blocked workers that were lost.
    blocked_lost: Counter,
    /// The number of requests lost, by cause.
    lost: Family<Counter>,
    /// The number of processes that could not be traced.
    untraced: Counter,
    /// The number of nginx binaries that are traced.
    binaries: Gauge,
    /// The CPU time of the tool, in seconds.
    cpu: Seconds,
    /// The resident memory of the tool, in bytes.
    resident: Gauge,
}

impl OwnMetrics {
    /// Registers all metrics of the tool.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.register_all(registry);
        metrics
    }

    /// Registers each metric.
    fn register_all(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "ngx_bpf_requests_seen",
                "Requests that have ended",
                &self.seen,
            ),
            (
                "ngx_bpf_requests_written",
                "Requests written",
                &self.written,
            ),
            (
                "ngx_bpf_requests_filtered",
                "Requests that the options left out",
                &self.filtered,
            ),
            (
                "ngx_bpf_untraced_processes",
                "Processes that could not be traced",
                &self.untraced,
            ),
            (
                "nginx_tls_handshake_failures",
                "TLS handshakes of clients that failed",
                &self.failed_handshakes,
            ),
            (
                "ngx_bpf_blocked_lost",
                "Records of blocked workers that were lost",
                &self.blocked_lost,
            ),
        ] {
            registry.register_one(name, help, counter);
        }
        self.register_connections(registry);
        let lost = "Requests that were lost";
        registry.register("ngx_bpf_requests_lost", lost, &self.lost);
        let binaries = "nginx binaries that are traced";
        registry.register_one("ngx_bpf_traced_binaries", binaries, &self.binaries);
        let cpu = "CPU time that ngx-bpf itself has used";
        registry.register_one("process_cpu_seconds", cpu, &self.cpu);
        let resident = "Memory that ngx-bpf itself has in use";
        registry.register_one("process_resident_memory_bytes", resident, &self.resident);
    }

    /// Registers those of connections.
    fn register_connections(&self, registry: &mut Registry) {
        let [seen, written, lost] = &self.connections;
        for (name, help, counter) in [
            (
                "ngx_bpf_connections_seen",
                "Connections that have ended without a request",
                seen,
            ),
            (
                "ngx_bpf_connections_written",
                "Connections without a request that were written",
                written,
            ),
            (
                "ngx_bpf_connections_lost",
                "Connections without a request that were lost",
                lost,
            ),
        ] {
            registry.register_one(name, help, counter);
        }
    }

    /// Updates all metrics. `binaries` is the number of binaries that are traced.
    pub fn update(&self, counts: &Counts, written: u64, binaries: usize) {
        self.seen.set(counts.seen);
        self.written.set(written);
        self.filtered.set(counts.filtered);
        self.failed_handshakes.set(counts.failed_handshakes);
        let connections = counts.connections;
        let values = [connections.seen, connections.written, connections.lost];
        for (counter, value) in self.connections.iter().zip(values) {
            counter.set(value);
        }
        self.blocked_lost.set(counts.blocked_lost);
        self.untraced.set(counts.untraced_processes);
        for (cause, count) in counts.by_cause() {
            let labels = vec![("cause", cause.name().to_owned())];
            self.lost.with(&labels).set(count);
        }
        self.binaries
            .set(i64::try_from(binaries).unwrap_or(i64::MAX));
        if let Ok(usage) = Usage::read() {
            self.cpu.set(usage.cpu.as_secs_f64());
            self.resident
                .set(i64::try_from(usage.resident).unwrap_or(i64::MAX));
        }
    }
}
