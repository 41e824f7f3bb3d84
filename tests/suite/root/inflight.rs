// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf inflight`: the requests of an nginx that nothing traces.

use std::process::Command;
use std::process::Output;
use std::time::Duration;
use std::time::Instant;

use ngx_bpf_record::Inflight;
use ngx_bpf_record::values::State;
use rustls::version::TLS13;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::listener::FullListener;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_for;
use crate::suite::root::tunnels::WITH_TLS;
use crate::suite::root::tunnels::echo;
use crate::suite::root::tunnels::open;

/// Requests that nginx itself makes wait.
mod pauses;
/// Streams of HTTP/2.
mod streams;

/// A server with upstreams that answer never, or not to the end.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        location / { return 200 'hello\\n'; }
        location /up/ { proxy_pass http://127.0.0.1:{upstream}/; }
        location /stream/ { proxy_pass http://127.0.0.1:{upstream}/; proxy_buffering off; }
    }";

/// Runs the command for one nginx.
fn run(nginx: &Nginx, args: &[&str]) -> Output {
    let pid = nginx.pid().to_string();
    let mut command = Command::new(PROGRAM);
    let output = command.args(["inflight", "--pid", &pid]).args(args);
    output.output().unwrap()
}

/// Returns the requests in flight.
fn inflight(nginx: &Nginx) -> Vec<Inflight<'static>> {
    let output = run(nginx, &["--json"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until the requests in flight have these uris and states, in any order. Returns them in the order of
/// their uris.
pub fn wait_states(
    nginx: &Nginx,
    expected: &[(Option<&str>, Option<State>)],
) -> Vec<Inflight<'static>> {
    let mut expected: Vec<_> = expected.to_vec();
    expected.sort();
    wait_for(|| {
        let mut found = inflight(nginx);
        found.sort_by(|a, b| (&a.request_uri, a.state).cmp(&(&b.request_uri, b.state)));
        let states = found
            .iter()
            .map(|request| (request.request_uri.as_deref(), request.state));
        if states.eq(expected.iter().copied()) {
            return Ok(found);
        }
        Err(format!("{expected:?}: {found:#?}"))
    })
}

/// Sends requests that do not end, each in another state, over HTTP/1 with TLS and without. Returns the clients.
fn send_all(nginx: &Nginx, port: u16) -> Vec<Client> {
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(nginx.port)).collect();
    clients.push(
        Tls::begin(port, &TLS13, &["http/1.1"])
            .finish()
            .into_client(),
    );
    for (client, request) in clients.iter_mut().zip([
        "GET /half HTTP/1.1\r\nHost: ",
        "POST /up/body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "GET /up/hang?sig=secret HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET /stream/body-90000000 HTTP/1.1\r\nHost: c\r\n\r\n",
        "GET /up/head/hang HTTP/1.1\r\nHost: d\r\n\r\n",
    ]) {
        client.send(request);
    }
    clients
}

/// Check states, that what is known of each request is what was sent, and that neither idle connections nor
/// requests that have ended are listed.
#[test]
fn states() {
    let upstream = Upstream::start();
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    assert_eq!(inflight(&nginx), []);
    let mut idle = Client::connect(nginx.port);
    assert_eq!(idle.get("/").status, 200);
    let clients = send_all(&nginx, port);
    let found = wait_states(
        &nginx,
        &[
            (Some("/half"), Some(State::ReadingHeader)),
            (Some("/stream/body-90000000"), Some(State::Sending)),
            (Some("/up/body"), Some(State::ReadingBody)),
            (Some("/up/hang?sig=REDACTED"), Some(State::Waiting)),
            (Some("/up/head/hang"), Some(State::Receiving)),
        ],
    );
    let worker = nginx.workers()[0];
    let addr = format!("127.0.0.1:{}", upstream.port);
    for request in &found {
        assert_eq!(
            (request.pid, request.connection_requests),
            (worker, 1),
            "{request:#?}"
        );
        assert_eq!(request.remote_addr.as_deref(), Some("127.0.0.1"));
        assert!(
            request
                .age_ms
                .is_some_and(|age| age < PATIENCE.as_millis() as u64)
        );
        let is_of_upstream = matches!(request.state, Some(State::Waiting | State::Receiving));
        let upstream = request.upstream_addr.as_deref();
        assert_eq!(upstream, is_of_upstream.then_some(&*addr), "{request:#?}");
    }
    let hosts: Vec<_> = found
        .iter()
        .map(|request| request.http_host.as_deref())
        .collect();
    assert_eq!(hosts, [None, Some("c"), Some("a"), Some("b"), Some("d")]);
    let methods = found
        .iter()
        .map(|request| request.request_method.as_deref());
    assert!(methods.eq(["GET", "GET", "POST", "GET", "GET"].map(Some)));
    let statuses: Vec<_> = found.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [None, Some(200), None, None, Some(200)]);
    assert!(found[1].response_size > 0, "{found:#?}");
    let text = String::from_utf8(run(&nginx, &[]).stdout).unwrap();
    let line = format!(", waiting {addr}, client 127.0.0.1, GET, host b, /up/hang?sig=REDACTED, ");
    assert!(text.contains(&line) && !text.contains("secret"), "{text}");
    drop(clients);
    wait_states(&nginx, &[]);
}

/// Check requests that have not gone out to their upstream: it takes no connection, or no more of a body. Their age is
/// that of the requests.
#[test]
fn not_sent() {
    let (upstream, full) = (Upstream::start(), FullListener::start());
    let http = "
        client_max_body_size 0;
        server {
            listen 127.0.0.1:{port};
            location /full { proxy_pass http://127.0.0.1:{full}; }
            location /deaf { proxy_pass http://127.0.0.1:{upstream}; }
        }";
    let nginx = Nginx::with(
        &http.replace("{full}", &full.port.to_string()),
        upstream.port,
    );
    let sent = Instant::now();
    let mut clients = [(); 2].map(|()| Client::connect(nginx.port));
    clients[0].send("GET /full HTTP/1.1\r\nHost: a\r\n\r\n");
    clients[1].send("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 16777216\r\n\r\n");
    clients[1].send(vec![b'x'; 16 << 20]);
    wait_states(
        &nginx,
        &[
            (Some("/deaf"), Some(State::SendingRequest)),
            (Some("/full"), Some(State::Connecting)),
        ],
    );
    delay(Duration::from_millis(100));
    let found = inflight(&nginx);
    let most = sent.elapsed().as_millis() as u64 + 1;
    let addrs = [&full.port, &upstream.port].map(|port| format!("127.0.0.1:{port}"));
    for request in &found {
        let age = request.age_ms.unwrap();
        assert!((99..=most).contains(&age), "{request:#?}");
        let is_full = request.request_uri.as_deref() == Some("/full");
        let addr = &addrs[usize::from(!is_full)];
        assert_eq!(request.upstream_addr.as_ref(), Some(&addr.into()));
    }
    assert_eq!(found.len(), 2);
}

/// Check a connection that has become a tunnel, with TLS and without, before bytes pass through it and after.
#[test]
fn tunnels() {
    let port = echo();
    let (http, tls_port) = tls::with_port(WITH_TLS);
    let nginx = Nginx::prepared(&http, port, tls::certificate);
    let tls = Tls::begin(tls_port, &TLS13, &["http/1.1"]).finish();
    let clients = [Client::connect(nginx.port), tls.into_client()];
    let mut clients = clients.map(|client| open(client, "/", ""));
    let addr = format!("127.0.0.1:{port}");
    let tunnel = (Some("/"), Some(State::Tunnel));
    for _ in 0..2 {
        for request in wait_states(&nginx, &[tunnel, tunnel]) {
            assert_eq!(request.status, Some(101), "{request:#?}");
            assert_eq!(request.upstream_addr.as_deref(), Some(&*addr));
        }
        for client in &mut clients {
            client.send("four");
            assert_eq!(client.some(), b"four");
        }
    }
    drop(clients);
    wait_states(&nginx, &[]);
}

/// Check a stream of HTTP/3 that waits for an upstream.
#[test]
fn over_http3() {
    if http3::is_missing() {
        return;
    }
    let upstream = Upstream::start();
    let http = "server { listen 127.0.0.1:{port} quic; location / { return 200 x; }
        location /late { proxy_pass http://127.0.0.1:{upstream}/hang; } }";
    let http = [tls::DIRECTIVES, http].concat();
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    let mut client = Http3::connect(nginx.port);
    client.get(0, "/late");
    let found = wait_states(&nginx, &[(Some("/late"), Some(State::Waiting))]);
    assert_eq!(
        found[0].server_protocol.as_deref(),
        Some("HTTP/3.0"),
        "{found:#?}"
    );
}

/// Check that a worker that is stopped is read as well, and what is not an nginx is an error.
#[test]
fn stuck() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location /a { proxy_pass http://127.0.0.1:{upstream}/hang; } }",
        upstream.port,
    );
    let mut client = Client::connect(nginx.port);
    client.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_states(&nginx, &[(Some("/a"), Some(State::Waiting))]);
    let worker = nginx.workers()[0];
    stop(worker);
    assert_eq!(inflight(&nginx).len(), 1);
    kill("CONT", worker);
    let me = std::process::id().to_string();
    let output = Command::new(PROGRAM)
        .args(["inflight", "--pid", &me])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        output.stdout.is_empty() && !output.stderr.is_empty(),
        "{output:?}"
    );
}

/// Check that SIGUSR2 makes a tool that traces print the same, and that it goes on.
#[test]
fn of_a_running_tool() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location /a { proxy_pass http://127.0.0.1:{upstream}/hang; } }",
        upstream.port,
    );
    let mut tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    client.send("GET /a?sig=secret HTTP/1.1\r\nHost: t\r\n\r\n");
    wait_states(&nginx, &[(Some("/a?sig=REDACTED"), Some(State::Waiting))]);
    for _ in 0..2 {
        tool.signal("USR2");
        tool.wait_for_message("1 request in flight");
        let line = tool.wait_for_message("waiting");
        assert!(line.contains(", GET, host t, /a?sig=REDACTED, "), "{line}");
    }
    drop(client);
    drop(nginx.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 1);
}

/// Check a response that a client with TLS does not take, and one that `limit_rate` holds back, which does not wait for
/// the client. Each is listed once, although the master and its worker were asked for.
#[test]
fn responses_that_stay() {
    let http = "
        output_buffers 1 32k;
        server {
            listen 127.0.0.1:{port};
            listen 127.0.0.1:{tls} ssl;
            root {prefix}/html;
            location /paced { limit_rate 1k; }
        }";
    let (http, port) = tls::with_port(http);
    let nginx = Nginx::prepared(&http, 9, tls::certificate);
    nginx.file("paced", &[b'x'; 100_000]);
    nginx.file("large", &vec![b'x'; 16 << 20]);
    let mut paced = Client::connect(nginx.port);
    paced.send("GET /paced HTTP/1.1\r\nHost: a\r\n\r\n");
    paced.some();
    let mut held = Tls::begin(port, &TLS13, &["http/1.1"])
        .finish()
        .into_client();
    held.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let expected = [
        (Some("/large"), Some(State::Sending)),
        (Some("/paced"), None),
    ];
    wait_states(&nginx, &expected);
    let worker = nginx.workers()[0].to_string();
    let output = run(&nginx, &[&worker, "--json"]);
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 3);
}
