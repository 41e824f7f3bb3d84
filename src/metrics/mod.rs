// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics over all requests, for Prometheus.

use std::net::SocketAddr;

use anyhow::Context as _;
use anyhow::Result;

use exposition::Registry;
use listen::ListenMetrics;
pub use names::MetricNames;
use nginx::NginxMetrics;
use own::OwnMetrics;
pub use requests::RequestMetrics;
use route::Route;

mod attempts;
mod buckets;
mod connections;
mod ends;
mod exposition;
mod host;
mod kinds;
mod labels;
pub mod listen;
mod names;
pub mod nginx;
mod otel;
mod overflows;
pub mod own;
mod phases;
mod place;
mod requests;
pub mod route;
mod server;
mod waits;

/// The address at which metrics are served, and the routes that are counted.
#[derive(Clone, Debug)]
pub struct MetricsSettings {
    /// The address to listen on.
    pub address: SocketAddr,
    /// The names of the metrics of requests.
    pub names: MetricNames,
    /// Names for groups of paths; without any, metrics have no label `route`.
    pub routes: Vec<Route>,
    /// True to serve nginx's own counters, too.
    pub stats: bool,
}

/// The metrics that are served, which stay 0 until they are updated. The default is none.
#[derive(Default)]
pub struct Served {
    /// Those of the tool itself.
    pub own: Option<OwnMetrics>,
    /// Those of requests.
    pub requests: Option<RequestMetrics>,
    /// Those of nginx itself.
    pub nginx: Option<NginxMetrics>,
    /// Those of its listening sockets.
    pub listeners: Option<ListenMetrics>,
}

/// Starts to serve metrics, if they are asked for. Fails when the address can't be bound.
pub fn serve(settings: Option<MetricsSettings>) -> Result<Served> {
    let Some(settings) = settings else {
        return Ok(Served::default());
    };
    let mut registry = Registry::default();
    let requests = RequestMetrics::register(settings.names, settings.routes, &mut registry);
    let served = Served {
        requests: Some(requests),
        own: Some(OwnMetrics::register(&mut registry)),
        nginx: settings
            .stats
            .then(|| NginxMetrics::register(&mut registry)),
        listeners: Some(ListenMetrics::register(&mut registry)),
    };
    server::start(settings.address, registry)
        .with_context(|| format!("failed to serve metrics at {}", settings.address))?;
    Ok(served)
}

#[cfg(test)]
mod tests;
