// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS handshakes that fail, certificates that are refused, and sessions that are resumed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::client::reset;
use crate::suite::common::listener::listen;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::tls;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::failures::log::compare;
use crate::suite::root::failures::log::compared;
use crate::suite::root::failures::log::said;
use crate::suite::root::failures::plan::Plan;
use crate::suite::root::requests::traced;

/// Starts a server that ends each connection when the first bytes have come, and returns its port.
fn serve_no_handshake(end: fn(&TcpStream)) -> u16 {
    listen(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        end(&stream);
    })
}

/// The modules that speak TLS to upstreams, each with its scheme.
const MODULES: [(&str, &str); 3] = [
    ("proxy", "https://"),
    ("grpc", "grpcs://"),
    ("uwsgi", "suwsgi://"),
];

/// The versions of TLS, as nginx names them.
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

/// Makes a plan for these modules, in an nginx with a certificate.
fn plan() -> Plan {
    let mut plan = Plan::new(&MODULES.map(|(module, _)| module));
    plan.http += tls::DIRECTIVES;
    plan
}

/// Returns the names of locations of a module whose upstreams have certificates that nginx refuses,
/// with the port and the directives of each.
fn refused(module: &str, good: u16, revoked: u16) -> [(&'static str, u16, String); 3] {
    /* A slow machine needs more time for all these handshakes at once. */
    let ca = format!(
        "{module}_connect_timeout 60s; {module}_ssl_verify on; {module}_ssl_trusted_certificate {{prefix}}"
    );
    let name = format!("{module}_ssl_name");
    [
        ("ca", good, format!("{ca}/other/cert.pem; {name} test;")),
        ("name", good, format!("{ca}/cert.pem; {name} elsewhere;")),
        (
            "revoked",
            revoked,
            format!("{ca}/cert.pem; {module}_ssl_crl {{prefix}}/crl.pem; {name} revoked;"),
        ),
    ]
}

/// Check handshakes that do not end, and certificates that nginx refuses: a request that was not
/// sent and a handshake that did not end have no times, and the failure is the one in nginx's log.
#[test]
fn handshakes() {
    if is_built_without(REWRITE) {
        return;
    }
    let [good, revoked] = [(); 2].map(|()| free_port());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closes = serve_no_handshake(|stream| stream.shutdown(Shutdown::Both).unwrap());
    let unfinished = [
        ("silent", silent.local_addr().unwrap().port()),
        ("plain", Upstream::start().port),
        ("closes", closes),
        ("resets", serve_no_handshake(reset)),
    ];
    let mut plan = plan();
    plan.http += &format!(
        "server {{ listen 127.0.0.1:{good} ssl http2; return 200; }}
         server {{ listen 127.0.0.1:{revoked} ssl http2; return 200;
                   ssl_certificate {{prefix}}/revoked.pem; ssl_certificate_key {{prefix}}/revoked.key; }}"
    );
    for (module, scheme) in MODULES {
        let unfinished = unfinished.map(|(name, port)| (name, port, String::new()));
        let locations = refused(module, good, revoked).into_iter().chain(unfinished);
        for (name, port, directives) in locations {
            for version in VERSIONS {
                let place = format!("/{module}/{version}/{name}/");
                let content = format!(
                    "{directives} {module}_ssl_protocols {version}; {module}_ssl_session_reuse off;
                     {module}_pass {scheme}127.0.0.1:{port};"
                );
                plan.location(&place, &content);
                for n in 0..2 {
                    plan.get(format!("{place}{n}"));
                }
            }
        }
    }
    let nginx = Nginx::prepared(&plan.configuration(), 9, |folder| {
        tls::certificate(folder);
        tls::revoked(folder);
        fs::create_dir(folder.join("other")).unwrap();
        tls::certificate(&folder.join("other"));
    });
    let (records, names) = compared(nginx, |nginx| {
        plan.send(nginx.port, plan.requests.len());
        let log = fs::read_to_string(nginx.prefix().join("error.log")).unwrap();
        assert_eq!(log.matches("certificate revoked").count(), 12, "{log}");
    });
    assert_eq!(records.len(), plan.requests.len(), "{records:#?}");
    assert_eq!(Vec::from_iter(names), ["tls_error", "tls_timeout"]);
    for record in &records {
        let attempt = &record.upstreams[0];
        let is_over = record.uri.as_deref().unwrap().split('/').nth(3);
        let is_over = matches!(is_over, Some("ca" | "name" | "revoked"));
        assert_eq!(attempt.upstream_tls_ns.is_some(), is_over, "{record:#?}");
        assert_eq!(attempt.reused, None, "{record:#?}");
        assert_eq!(attempt.upstream_request_last_byte_time, None, "{record:#?}");
    }
}

/// Check TLS sessions that are resumed. OpenSSL remembers whether the certificate was good: then
/// the request is like any other on a new connection. When the certificate was not verified before,
/// a location that verifies it refuses the session.
#[test]
fn resumed_sessions() {
    if is_built_without(REWRITE) {
        return;
    }
    let good = free_port();
    let mut plan = plan();
    plan.http += &format!(
        "server {{ listen 127.0.0.1:{good} ssl http2;
                   location / {{ return 200 $ssl_session_reused; }} }}"
    );
    for (module, scheme) in MODULES {
        let verify = format!(
            "{module}_ssl_verify on; {module}_ssl_trusted_certificate {{prefix}}/cert.pem;
             {module}_ssl_name test;"
        );
        for version in VERSIONS {
            for (name, first) in [("verified", &verify[..]), ("unverified", "")] {
                let upstream = format!("{module}-{version}-{name}");
                plan.upstream(&upstream, &format!("server 127.0.0.1:{good};"));
                for (n, directives) in [first, &verify].into_iter().enumerate() {
                    let uri = format!("/{module}/{version}/{name}/{n}");
                    let content = format!(
                        "{directives} {module}_ssl_protocols {version};
                         {module}_pass {scheme}{upstream};"
                    );
                    plan.location(&uri, &content);
                    plan.get(uri);
                }
            }
        }
    }
    let mut logged = BTreeMap::new();
    let nginx = Nginx::prepared(&plan.configuration(), 9, tls::certificate);
    let mut records = traced(nginx, |nginx| {
        for (uri, _) in &plan.requests {
            let response = Client::connect(nginx.port).get(uri);
            let is_resumed = uri.starts_with("/proxy/") && uri.ends_with("/verified/1");
            assert!(!is_resumed || response.body == b"r", "{uri}");
        }
        logged = said(nginx);
    });
    /* The upstream is a server of the same nginx; its records are dropped. */
    records.retain(|record| record.server_port != Some(good));
    assert_eq!(records.len(), plan.requests.len());
    let names = compare(&records, &logged);
    assert_eq!(Vec::from_iter(names), ["tls_error"]);
    for record in &records {
        let attempt = &record.upstreams[0];
        let is_refused = record.uri.as_deref().unwrap().ends_with("/unverified/1");
        assert_eq!(attempt.failure.is_some(), is_refused, "{record:#?}");
        assert_eq!(attempt.reused, (!is_refused).then_some(false));
        assert!(attempt.upstream_tls_ns.is_some_and(|ns| ns > 0));
        let last = attempt.upstream_request_last_byte_time;
        assert_eq!(last.is_none(), is_refused, "{record:#?}");
    }
}
