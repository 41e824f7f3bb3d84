// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures the overhead of tracing, without and with it, interleaved in one run on one machine: CPU time of an
//! nginx worker and of the machine for a request, the latency of a client, the CPU time of the tool for a record, and
//! the cost for processes that are not traced. It prints tables, writes a page and a chart to target/bench, and
//! asserts nothing about time.

/* As in tests/integration.rs. Only a part of its harness is used here. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used,
    dead_code
)]

mod abuse;
mod chart;
#[path = "../../tests/suite/common/mod.rs"]
mod common;
mod cpu;
mod hits;
mod interval;
mod latency;
mod load;
mod machine;
mod many;
mod own;
mod pinning;
mod report;
mod rivals;
mod rounds;
mod row;
mod run;
mod site;
mod tracing;

use common::nginx::Nginx;
use run::Run;
use site::Site;

/// The requests that are measured with several options, and in their latency.
const URIS: [(&str, &str); 2] = [("static", "/static"), ("proxied", "/proxied")];

fn main() {
    if std::env::var_os("NGX_BPF_BENCH_ABUSE").is_some() {
        return abuse::measure();
    }
    let mut run = Run::start();
    let site = Site::start();
    let other = Nginx::simple();
    for (name, uri) in URIS {
        site.options(&mut run, &other, name, uri);
    }
    drop(other);
    site.loads(&mut run);
    site::http3(&mut run);
    site::crowd(&mut run);
    let upstream = site.upstream.port;
    many::measure(&mut run, upstream);
    rivals::measure(&mut run, upstream);
    for (name, uri) in URIS {
        let name = format!("{name}, latency");
        if run.wants(&name, false) {
            run.latency(latency::measure(&run.plan, &name, &site.nginx, uri));
        }
    }
    if run.plan.is_whole() {
        for (name, uri) in URIS {
            let hits = hits::of_uprobes(&site.nginx, uri);
            run.note(format!("Uprobes for a request, {name}: {hits:.2}."));
        }
        many::report(upstream);
        abuse::measure();
        own::measure(&site.nginx);
    }
    run.write();
}
