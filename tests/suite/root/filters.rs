// SPDX-License-Identifier: MIT OR Apache-2.0
//! Filters: the values of the options mean what users expect.

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_right;
use crate::suite::root::metrics::served;

/// A server on which every request ends at one script, as in most PHP applications.
const FRONT_CONTROLLER: &str = "
    server { listen 127.0.0.1:{port};
             location / { try_files /nowhere /index.php; }
             location = /index.php { return 200; } }";

/// Waits until the metrics on a port have counts of this number of routes, and returns these, each
/// with its label.
fn counted(port: u16, routes: usize) -> Vec<String> {
    let read = || {
        let body = served(port);
        let counts = body.lines().filter_map(|line| {
            let labels = line.strip_prefix("nginx_http_requests_total{")?;
            let (_, rest) = labels.split_once("route=").unwrap();
            let (route, _) = rest.split_once(',').unwrap();
            let (_, count) = rest.rsplit_once("} ").unwrap();
            Some(format!("{route}}} {count}"))
        });
        counts.collect()
    };
    let mut counts: Vec<String> = wait_right(read, |counts: &Vec<_>| counts.len() >= routes);
    counts.sort();
    counts
}

/// Check that `--uri`, `--route` and the line of text use what the client asked for, and not the
/// uri to which nginx rewrote it.
#[test]
fn uri_is_what_the_client_asked_for() {
    let nginx = Nginx::with(FRONT_CONTROLLER, 9);
    let pid = nginx.pid().to_string();
    let port = free_port();
    let json = Tool::start(&["--json", "--uri", "/shop", "-p", &pid], 1);
    let text = Tool::start(&["--format", "text", "-p", &pid], 1);
    let routes = "--route shop=/shop/* --route index=/index.php";
    let args = format!("--json --metrics {port} {routes} -p {pid}");
    let metrics = Tool::start(&Vec::from_iter(args.split(' ')), 1);
    let mut client = Client::connect(nginx.port);
    for uri in [
        "/shop/7?sig=secret&q=/a",
        "/other?/shop/",
        "/shop",
        "/index.php",
    ] {
        assert_eq!(client.get(uri).status, 200);
    }
    nginx.wait_logged(4);
    assert_eq!(
        counted(port, 3),
        ["\"index\"} 1", "\"other\"} 2", "\"shop\"} 1"]
    );
    drop(client);
    drop(nginx.quit());
    let ended = json.wait();
    ended.assert_clean();
    let records = ended.records();
    let uris: Vec<_> = records
        .iter()
        .map(|r| r.request_uri.as_deref().unwrap())
        .collect();
    assert_eq!(uris, ["/shop/7?sig=REDACTED&q=/a", "/shop"]);
    assert!(
        records
            .iter()
            .all(|r| r.uri.as_deref() == Some("/index.php"))
    );
    let ended = text.wait();
    let columns = ended
        .stdout
        .iter()
        .map(|line| line.split(", ").nth(1).unwrap());
    let columns: Vec<&str> = columns.collect();
    let expected = [
        "/shop/7?sig=REDACTED&q=/a",
        "/other?/shop/",
        "/shop",
        "/index.php",
    ];
    assert_eq!(columns, expected);
    metrics.wait().assert_clean();
}

/// Check that a method in lower case matches, although clients can only send upper case, and that a
/// pattern in place of a prefix gets a hint.
#[test]
fn values_that_look_right() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let get = Tool::start(&["--json", "--method", "get", "-p", &pid], 1);
    let pattern = Tool::start(&["--json", "--uri", "/x.*", "-p", &pid], 1);
    Client::connect(nginx.port).get("/x.y");
    drop(nginx.quit());
    let get = get.wait();
    get.assert_clean();
    assert_eq!(get.records().len(), 1);
    assert_eq!(get.stderr.len(), 2, "{get:?}");
    let pattern = pattern.wait();
    pattern.assert_clean();
    assert!(pattern.records().is_empty());
    let hint = &pattern.stderr[1];
    assert!(
        hint.contains("--uri takes a prefix, not a pattern"),
        "{hint}"
    );
}

/// Check statuses that HTTP does not define: nginx logs what `return` and an upstream send, so a
/// user may ask for them, and a hint says that they are unusual.
#[test]
fn statuses_beyond_http() {
    if is_built_without(REWRITE) {
        return;
    }
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { return 204; }
                  location /a { return 699; } location /b { return 050; }
                  location /status-650 { proxy_pass http://127.0.0.1:{upstream}; } }",
        upstream.port,
    );
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&["--json", "--status", "6xx,0xx", "-p", &pid], 1);
    for uri in ["/", "/a", "/b", "/status-650"] {
        let mut client = Client::connect(nginx.port);
        client.send(format!("GET {uri} HTTP/1.0\r\n\r\n"));
        assert!(!client.rest().is_empty());
    }
    let logged = nginx.quit();
    let statuses: Vec<_> = logged.iter().map(|logged| logged.status.as_str()).collect();
    assert_eq!(statuses, ["204", "699", "050", "650"]);
    let ended = tool.wait();
    ended.assert_clean();
    let statuses: Vec<_> = ended.records().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [Some(699), Some(50), Some(650)]);
    assert!(ended.stderr[1].contains("above 599"), "{ended:?}");
}

/// Check `--failed`: a status of 400 or more, an attempt that failed before another one answered,
/// an attempt of a subrequest; with another filter both must hold.
#[test]
fn failed() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "upstream app { server 127.0.0.1:9; server 127.0.0.1:{upstream}; }
         server { listen 127.0.0.1:{port};
                  location / { return 200; }
                  location /no { return 404; }
                  location /bad { proxy_pass http://127.0.0.1:9; }
                  location /wait-1 { proxy_pass http://127.0.0.1:{upstream}; }
                  location /tried { proxy_pass http://app/wait-1; }
                  location /mirrored { mirror /bad; proxy_pass http://127.0.0.1:{upstream}/wait-1; } }",
        upstream.port,
    );
    let pid = nginx.pid().to_string();
    let all = Tool::start(&["--json", "-p", &pid], 1);
    let failed = Tool::start(&["--json", "--failed", "-p", &pid], 1);
    let both = Tool::start(&["--json", "--failed", "--status", "2xx", "-p", &pid], 1);
    let mut client = Client::connect(nginx.port);
    for uri in ["/", "/no", "/bad", "/wait-1", "/tried", "/mirrored"] {
        client.get(uri);
    }
    drop(client);
    drop(nginx.quit());
    let uris = |tool: Tool| -> Vec<String> {
        let ended = tool.wait();
        ended.assert_clean();
        let records = ended.records().into_iter();
        records
            .map(|record| record.request_uri.clone().unwrap().into_owned())
            .collect()
    };
    assert_eq!(uris(all).len(), 6);
    assert_eq!(uris(failed), ["/no", "/bad", "/tried", "/mirrored"]);
    assert_eq!(uris(both), ["/tried", "/mirrored"]);
}
