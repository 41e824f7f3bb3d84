// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers that end while connections are tunnels.

use ngx_bpf_record::Ending;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Scheme;
use ngx_bpf_record::values::Side;
use rustls::version::TLS13;

use super::has_memory_at_exit;
use super::kill_worker;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Tool;
use crate::suite::root::tunnels::REQUEST;
use crate::suite::root::tunnels::WITH_TLS;
use crate::suite::root::tunnels::echo;
use crate::suite::root::tunnels::open;

/// Calls `end`, which ends the only worker, while the worker has three tunnels: two through which bytes have passed,
/// one of them over TLS, and a silent one. Returns their records, and the nginx.
fn with_tunnels(main: &str, end: impl FnOnce(&Nginx, Vec<Client>)) -> (Nginx, Vec<Record>) {
    let upstream = echo();
    let (http, port) = tls::with_port(WITH_TLS);
    let config = Config {
        http: &http,
        upstream,
        main,
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let tls = Tls::begin(port, &TLS13, &["http/1.1"]).finish();
    let clients = vec![
        open(Client::connect(nginx.port), "/", "four"),
        open(tls.into_client(), "/", "four"),
        open(Client::connect(nginx.port), "/", ""),
    ];
    end(&nginx, clients);
    let ended = tool.stop();
    ended.assert_clean();
    let records = ended.records();
    let summary = ended.summary();
    assert_eq!((summary.seen, summary.written), (3, 3), "{ended:?}");
    let encrypted = records
        .iter()
        .filter(|record| record.scheme == Scheme::Https);
    assert_eq!(encrypted.count(), 1, "{records:#?}");
    (nginx, records)
}

/// Asserts that a record is that of a tunnel that its worker ended: the times of its response are those of the 101,
/// and neither the tunnel nor its upstream failed.
fn assert_tunnel(record: &Record) {
    let tunnel_ns = record.ending.tunnel_ns;
    assert!(tunnel_ns.is_some_and(|ns| ns > 0), "{record:#?}");
    let expected = Ending {
        end: Some(End::WorkerExit),
        closed_by: Some(Side::Nginx),
        tunnel: true,
        tunnel_ns,
        ..Ending::default()
    };
    assert_eq!(record.ending, expected, "{record:#?}");
    let p = &record.phases;
    let first = p.downstream_response_first_byte_time;
    assert!(p.upstream_response_first_byte_time.is_some() && first.is_some());
    assert_eq!(p.downstream_request_body_last_byte_time, None);
    let [attempt] = &record.upstreams[..] else {
        panic!("{record:#?}")
    };
    assert_eq!(attempt.failure, None, "{record:#?}");
    if record.status.is_none() {
        return;
    }
    let request_size = i64::try_from(REQUEST.len()).ok();
    assert_eq!(record.request_size, request_size, "{record:#?}");
    let statuses = (record.status, attempt.status);
    assert_eq!(statuses, (Some(101), Some(101)), "{record:#?}");
    assert_eq!(first, p.downstream_response_last_byte_time, "{record:#?}");
    assert_eq!(
        p.upstream_response_first_byte_time, p.upstream_response_last_byte_time,
        "{record:#?}"
    );
    let lived = record.duration_ns.zip(tunnel_ns);
    let lived = lived.map(|(duration, tunnel)| duration + tunnel);
    assert_eq!(lived, record.elapsed_ns, "{record:#?}");
}

/// Asserts the same of a worker that ended no request itself. Where its memory has gone with it, a tunnel is known
/// by what has passed through it.
fn assert_abandoned(records: &[Record]) {
    let has_memory = has_memory_at_exit();
    let (tunnels, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| record.ending.tunnel);
    assert_eq!(
        tunnels.len(),
        if has_memory { 3 } else { 2 },
        "{records:#?}"
    );
    for record in tunnels {
        assert_tunnel(record);
        assert_eq!(record.status.is_some(), has_memory, "{record:#?}");
    }
    for record in others {
        assert_eq!(record.ending.end, Some(End::WorkerExit), "{record:#?}");
        assert_eq!(record.ending.tunnel_ns, None, "{record:#?}");
    }
}

/// Check tunnels of a worker that is killed.
#[test]
fn killed() {
    let (_, records) = with_tunnels("", |nginx, _clients| kill_worker(nginx));
    assert_abandoned(&records);
}

/// Check tunnels of a worker that has to end at once.
#[test]
fn fast_shutdown() {
    let (_, records) = with_tunnels("", |nginx, _clients| {
        kill("TERM", nginx.workers()[0]);
        nginx.wait_for_log("exited with code 0");
    });
    assert_abandoned(&records);
}

/// Check tunnels that nginx itself ends when `worker_shutdown_timeout` has expired.
#[test]
fn shutdown_timeout() {
    let main = "worker_shutdown_timeout 300ms;";
    let (nginx, records) = with_tunnels(main, |nginx, clients| {
        nginx.signal("HUP");
        for mut client in clients {
            client.rest();
        }
        nginx.wait_logged(3);
    });
    assert_equal(&records, &nginx.quit());
    for record in &records {
        assert_tunnel(record);
    }
}
