// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf advise` on a real nginx: each rule is provoked, and a healthy server gives no finding. One rule is not here:
//! `listen_overflow` needs a network namespace, which `listeners` has.

use std::fs;
use std::net::Shutdown;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustls::version::TLS13;
use serde_json::Value;

use crate::suite::common::build::LIMIT_REQ;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::dns;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_until;
use crate::suite::root::tunnels::echo;
use crate::suite::root::tunnels::open;

/// A server with a location for each rule, and one that is healthy.
const HTTP: &str = "
    limit_req_zone $pid zone=slow:64k rate=100r/s;
    resolver 127.0.0.1:{dns} ipv6=off;
    client_body_buffer_size 1k; client_max_body_size 64m;
    upstream silent { server 127.0.0.1:9 max_fails=0; server 127.0.0.1:{upstream}; }
    upstream unkept { server 127.0.0.1:{upstream}; }
    upstream kept { server 127.0.0.1:{upstream}; keepalive 4; }
    upstream uneven { server 127.0.0.1:{upstream} max_fails=0; server unix:{prefix}/fast max_fails=0; }
    server { listen unix:{prefix}/fast; location / { return 200 'fast\n'; } }
    proxy_buffers 8 4k; proxy_busy_buffers_size 8k;
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl;
        location / { return 200 'hello\\n'; }
        location /silent/ { proxy_pass http://silent; }
        location /unkept/ { proxy_pass http://unkept; proxy_http_version 1.0; proxy_set_header Connection close; }
        location /race/ { proxy_pass http://kept/; proxy_http_version 1.1; proxy_set_header Connection ''; }
        location /uneven/ { proxy_pass http://uneven; }
        location /twice/ { proxy_pass http://uneven/once/; proxy_next_upstream error timeout non_idempotent; }
        location /patience/ { proxy_pass http://unkept/; }
        location /upload/ { proxy_pass http://unkept/; }
        location /large/ { proxy_pass http://unkept/; }
        location /limited { limit_req zone=slow burst=90; }
        location /tunnel/ {
            proxy_pass http://127.0.0.1:{echo}; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        }
        location /named/ { set $name $arg_n.test; proxy_pass http://$name:{upstream}; }
    }";

/// Traces this nginx while `run` sends requests to it, and returns the names of the rules that have found something.
fn found(run: impl FnOnce(&Nginx, u16)) -> Vec<Value> {
    let upstream = Upstream::start();
    let dns = dns::start_after(Duration::from_millis(10));
    let http = HTTP.replace("{dns}", &dns.to_string());
    let (http, port) = tls::with_port(&http.replace("{echo}", &echo().to_string()));
    let nginx = Nginx::prepared(&http, upstream.port, tls::certificate);
    nginx.file("limited", b"limited");
    let pid = nginx.pid().to_string();
    let mut tool = Tool::spawn(Command::new(PROGRAM).args(["advise", "--json", "--pid", &pid]));
    tool.read_stdout();
    tool.wait_ready(1);
    run(&nginx, port);
    let ended = tool.stop();
    let findings: Vec<Value> = ended
        .stdout
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let status = if findings.is_empty() { 0 } else { 3 };
    assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    findings
}

/// Asserts that a rule has found something about this subject, and returns that.
fn assert_found<'f>(findings: &'f [Value], rule: &str, subject: &str) -> &'f Value {
    let is_it = |finding: &&Value| {
        let known = finding["subject"].as_str().unwrap();
        finding["rule"] == rule && known.contains(subject)
    };
    let found = findings.iter().find(is_it);
    found.unwrap_or_else(|| panic!("{rule} about {subject} is not in {findings:#?}"))
}

/// Returns whether this nginx lacks a module of the server, and then prints SKIP.
fn is_not_built() -> bool {
    [REWRITE, LIMIT_REQ].into_iter().any(is_built_without)
}

/// Sends so many requests on one connection.
fn get(nginx: &Nginx, uri: &str, count: usize) {
    let mut client = Client::connect(nginx.port);
    for _ in 0..count {
        client.get(uri);
    }
}

/// Opens tunnels.
fn tunnels(nginx: &Nginx) -> Vec<Client> {
    let opened = (0..12).map(|_| open(Client::connect(nginx.port), "/tunnel/", "text"));
    opened.collect()
}

/// Check that nothing is found where nothing is the matter.
#[test]
fn healthy() {
    if is_not_built() {
        return;
    }
    let mut findings = found(|nginx, _| {
        get(nginx, "/", 500);
        get(nginx, "/race/", 200);
        drop(tunnels(nginx));
        /* This reload takes no worker from a tunnel. */
        nginx.wait_logged(712);
        nginx.signal("HUP");
    });
    /* A busy machine itself lets requests wait, and other tests fill queues of the same network namespace. */
    findings.retain(|finding| {
        let rule = finding["rule"].as_str().unwrap();
        !["worker_blocked", "listen_overflow"].contains(&rule)
    });
    assert!(findings.is_empty(), "{findings:#?}");
}

/// Check what upstreams give rise to: one that answers nothing, one that is slow, connections that are not kept, one
/// that closes kept ones, and a request that is sent twice.
#[test]
fn upstreams() {
    if is_not_built() {
        return;
    }
    let findings = found(|nginx, _| {
        get(nginx, "/silent/", 30);
        get(nginx, "/unkept/", 150);
        get(nginx, "/uneven/wait-20", 100);
        for _ in 0..5 {
            get(nginx, "/race/", 1);
            get(nginx, "/race/close", 1);
        }
        let mut client = Client::connect(nginx.port);
        for _ in 0..4 {
            client.send("POST /twice/close HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
            client.receive();
        }
    });
    let silent = assert_found(&findings, "server_silent", "127.0.0.1:9");
    assert!(silent["requests"].as_u64() >= Some(15), "{silent:#?}");
    assert_found(&findings, "upstream_not_kept", "unkept");
    let slow = assert_found(&findings, "server_slow", "127.0.0.1:");
    assert!(slow["lost_ns"].as_u64() > Some(500_000_000), "{slow:#?}");
    assert_found(&findings, "keepalive_race", "127.0.0.1:");
    assert_found(&findings, "retry_not_idempotent", "/twice/");
}

/// Check what clients give rise to: those that leave after the same time, that send and take much, and that shake
/// hands for each request.
#[test]
fn clients() {
    if is_not_built() {
        return;
    }
    let findings = found(|nginx, tls| {
        let port = nginx.port;
        let leave = move || {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            std::io::Write::write_all(
                &mut client,
                b"GET /patience/hang HTTP/1.1\r\nHost: t\r\n\r\n",
            )
            .unwrap();
            delay(Duration::from_millis(300));
            client.shutdown(Shutdown::Both).unwrap();
        };
        let leaving: Vec<_> = (0..15).map(|_| thread::spawn(leave)).collect();
        leaving
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let mut client = Client::connect(port);
        let body = "x".repeat(100_000);
        for _ in 0..25 {
            client.send(format!(
                "POST /upload/ HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n{body}"
            ));
            client.receive();
        }
        for _ in 0..22 {
            client.send("GET /large/body-12582912 HTTP/1.1\r\nHost: t\r\n\r\n");
            delay(Duration::from_millis(150));
            client.receive();
        }
        for _ in 0..110 {
            Tls::begin(tls, &TLS13, &[]).finish().into_client().get("/");
        }
    });
    let limit = assert_found(&findings, "client_time_limit", "/patience/");
    assert_eq!(limit["requests"], 15, "{limit:#?}");
    assert_found(&findings, "request_spill", "/upload/");
    assert_found(&findings, "response_spill", "/large/");
    assert_found(&findings, "slow_clients", "/large/");
    assert_found(&findings, "tls_handshakes", "");
}

/// Check what nginx itself gives rise to: delays by limit_req, names that are resolved, a worker that is away while
/// connections and requests wait for it.
#[test]
fn waits() {
    if is_not_built() {
        return;
    }
    let findings = found(|nginx, _| {
        let port = nginx.port;
        let limited: Vec<_> = (0..60)
            .map(|_| thread::spawn(move || drop(Client::connect(port).get("/limited"))))
            .collect();
        limited
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let mut client = Client::connect(port);
        for n in 0..25 {
            client.get(&format!("/named/?n=name{n}"));
        }
        for _ in 0..100 {
            Client::connect(port).get("/");
        }
        let worker = nginx.workers()[0];
        stop(worker);
        let waiting: Vec<_> = (0..10)
            .map(|_| thread::spawn(move || drop(Client::connect(port).get("/"))))
            .collect();
        delay(Duration::from_millis(300));
        kill("CONT", worker);
        waiting
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    assert_found(&findings, "limit_req_delay", "/limited");
    assert_found(&findings, "resolver", "/named/");
    assert_found(&findings, "accept_queue", "");
    let blocked = assert_found(&findings, "worker_blocked", "");
    assert!(blocked["requests"].as_u64() >= Some(3), "{blocked:#?}");
}

/// Check tunnels that hold a worker after a reload: most of them end while others hold it.
#[test]
fn old_workers() {
    if is_not_built() {
        return;
    }
    let findings = found(|nginx, _| {
        let mut opened = tunnels(nginx);
        let old = nginx.workers()[0];
        nginx.signal("HUP");
        wait_until("the worker does not shut down", || {
            let title = fs::read(format!("/proc/{old}/cmdline")).unwrap();
            String::from_utf8_lossy(&title).contains("shutting down")
        });
        /* The threshold, and twice the interval at which titles are read. */
        delay(Duration::from_secs(12));
        opened.truncate(1);
        nginx.wait_logged(11);
        assert!(fs::exists(format!("/proc/{old}")).unwrap());
    });
    let found = assert_found(&findings, "tunnels", "/tunnel/");
    /* The last one may end while the tool does. */
    assert!(found["requests"].as_u64() >= Some(11), "{found:#?}");
    assert_eq!(found["lost_ns"], Value::Null, "{found:#?}");
}
