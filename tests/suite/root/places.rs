// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where in the configuration each request was handled. nginx's access log has `$server_name` of every
//! request of every test, and `common::record` compares it.

use std::collections::BTreeSet;
use std::fs;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_before;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::dns;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

/// Servers with every kind of location.
const HTTP: &str = r"
    server {
        listen 127.0.0.1:{port} default_server;
        return 403;
    }
    server {
        listen 127.0.0.1:{port};
        server_name first.example second.example;
        root {prefix}/html;
        error_page 404 /errors/404;
        location = /exact { return 200; }
        location /prefix { return 200; }
        location ^~ /strong/ { return 200; }
        location ~ ^/regex/[a-z]+$ { return 200; }
        location ~* \.PNG$ { return 200; }
        location /outer/ {
            location /outer/inner/ { return 200; }
            location ~ /outer/(?<word>\w+)\.x$ { return 200; }
            return 200;
        }
        location /if/ { if ($arg_a) { return 201; } return 200; }
        location /limited/ { limit_except GET { deny all; } try_files /index.html =500; }
        location /rewritten/ { rewrite ^ /prefix/x last; }
        location /named/ { try_files /nothing @rescue; }
        location @rescue { return 200; }
        location /refused/ { error_page 502 = @rescue; proxy_pass http://127.0.0.1:9; }
        location /missing/ { }
        location /errors/ { internal; try_files /index.html =500; }
        location /accel/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /internal/ { internal; alias {prefix}/html/; }
        location / { }
    }
    server {
        listen 127.0.0.1:{port};
        server_name ~^(?<sub>.+)\.regex\.example$;
        location / { return 200; }
    }
    server {
        listen 127.0.0.1:{port};
        server_name *.wild.example;
        location / { return 200; }
    }";

/// Returns the location and the server of a record.
fn place(record: &Record) -> (Option<&str>, Option<&str>) {
    let place = &record.place;
    (place.location.as_deref(), place.server_name.as_deref())
}

/// Asserts that a record has the first of these locations that its uri begins with. A request without a uri has
/// none, and one that nginx refuses before it looks for a location.
pub fn assert_location(record: &Record, prefixes: &[&str]) {
    if place(record).0.is_none() && matches!(record.status, Some(400 | 405)) {
        return;
    }
    let uri = record.uri.as_deref();
    let expected = uri.and_then(|uri| prefixes.iter().find(|prefix| uri.starts_with(**prefix)));
    assert_eq!(place(record).0, expected.copied(), "{record:#?}");
}

/// Sends a request. The response is not looked at.
fn send(client: &mut Client, method: &str, uri: &str, host: &str) {
    client.send(format!(
        "{method} {uri} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
    ));
    client.receive();
}

/// Check the name of the location that answers, of every kind: after internal redirects it is the last one.
#[test]
fn locations() {
    if is_built_without(REWRITE) {
        return;
    }
    let all = [
        ("/exact", Some("/exact")),
        ("/prefix/x", Some("/prefix")),
        ("/strong/x.png", Some("/strong/")),
        ("/regex/abc", Some("^/regex/[a-z]+$")),
        ("/x.png", Some(r"\.PNG$")),
        ("/outer/", Some("/outer/")),
        ("/outer/inner/x", Some("/outer/inner/")),
        ("/outer/a.x", Some(r"/outer/(?<word>\w+)\.x$")),
        ("/if/", Some("/if/")),
        ("/if/?a=1", Some("/if/")),
        ("/limited/", Some("/limited/")),
        ("/rewritten/x", Some("/prefix")),
        ("/named/", Some("@rescue")),
        ("/refused/", Some("@rescue")),
        ("/missing/x", Some("/errors/")),
        ("/accel/accel-internal-index.html", Some("/internal/")),
        ("/accel/", Some("/accel/")),
        ("/", Some("/")),
    ];
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    nginx.file("index.html", b"index\n");
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (uri, _) in all {
            send(&mut client, "GET", uri, "second.example");
        }
        send(&mut client, "POST", "/limited/", "first.example");
    });
    assert_eq!(records.len(), all.len() + 1);
    let limited = ("/limited/", Some("/limited/"));
    for (record, (uri, location)) in records.iter().zip(all.into_iter().chain([limited])) {
        assert_eq!(place(record), (location, Some("first.example")), "{uri}");
    }
}

/// Check `$server_name` of each kind of name, and of a server without one. A request that its server answers, or
/// that nginx refuses before it knows its host, has no location.
#[test]
fn servers() {
    if is_built_without(REWRITE) {
        return;
    }
    let nginx = Nginx::with(HTTP, 9);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for host in [
            "first.example",
            "a.regex.example",
            "b.wild.example",
            "other",
        ] {
            send(&mut client, "GET", "/", host);
        }
        client.send("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n");
        client.receive();
        let mut client = Client::connect(nginx.port);
        client.send("nothing\r\n\r\n");
        client.receive();
    });
    let places: Vec<_> = records.iter().map(place).collect();
    assert_eq!(
        places,
        [
            (Some("/"), Some("first.example")),
            (Some("/"), Some(r"~^(?<sub>.+)\.regex\.example$")),
            (Some("/"), Some("*.wild.example")),
            (None, None),
            (None, None),
            (None, None),
        ]
    );
}

/// Servers with every way to name an upstream.
const UPSTREAMS: &str = r"
    upstream group { server 127.0.0.1:{upstream}; keepalive 2; }
    upstream down { server 127.0.0.1:9; }
    server {
        listen 127.0.0.1:{port};
        resolver 127.0.0.1:{dns};
        location /group/ { proxy_pass http://group/; }
        location /direct/ { proxy_pass http://127.0.0.1:{upstream}/; }
        location /variable/ { set $name group; proxy_pass http://$name/; }
        location /address/ { set $name 127.0.0.1:{upstream}; proxy_pass http://$name/; }
        location /resolved/ { set $name name.test; proxy_pass http://$name:{upstream}/; }
        location /down/ { proxy_pass http://down/; }
        location /rescued/ { error_page 502 = /group/x; proxy_pass http://down/; }
        location /page/ { error_page 502 /none/; proxy_pass http://down/; }
        location /auth/ { auth_request /group/x; proxy_pass http://127.0.0.1:{upstream}/; }
        location /asked/ { auth_request /group/x; return 200; }
        location /none/ { return 200; }
    }";

/// Check the name of the last upstream, whoever names it. Subrequests have upstreams of their own.
#[test]
fn upstreams() {
    if is_built_without(REWRITE) || is_built_without("http_auth_request_module") {
        return;
    }
    let all = [
        ("/group/x", Some("group")),
        ("/direct/x", Some("127.0.0.1")),
        ("/variable/x", Some("group")),
        ("/address/x", Some("127.0.0.1")),
        ("/resolved/x", Some("name.test")),
        ("/down/x", Some("down")),
        ("/rescued/x", Some("group")),
        ("/page/x", Some("down")),
        ("/auth/x", Some("127.0.0.1")),
        ("/asked/x", None),
        ("/none/x", None),
    ];
    let upstream = Upstream::start();
    let http = UPSTREAMS.replace("{dns}", &dns::start().to_string());
    let nginx = Nginx::with(&http, upstream.port);
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for _ in 0..2 {
            for (uri, _) in all {
                send(&mut client, "GET", uri, "test");
            }
        }
    });
    assert_eq!(records.len(), 2 * all.len());
    for (record, (uri, name)) in records.iter().zip(all.into_iter().cycle()) {
        assert_eq!(record.request_uri.as_deref(), Some(uri));
        assert_eq!(record.place.upstream_name.as_deref(), name, "{record:#?}");
    }
}

/// A group, and the file with its server.
const INCLUDING: &str = "
    upstream group { server 127.0.0.1:9; }
    include {prefix}/servers.conf;";

/// The content of that file.
const INCLUDED: &str = "# a comment
    server {
        listen 127.0.0.1:{port};
        location /group/ { proxy_pass http://group; }
        location /direct/ { proxy_pass http://127.0.0.1:9; }
        location /file/ { }
    }";

/// Check where servers and groups stand in the configuration, also in an included file, and that it is absent
/// without the option.
#[test]
fn config_lines() {
    if is_before((1, 15, 0), "the lines of servers") {
        return;
    }
    let nginx = Nginx::prepared(INCLUDING, 9, |folder| {
        fs::write(folder.join("servers.conf"), "").unwrap();
    });
    let servers = nginx.prefix().join("servers.conf");
    fs::write(
        &servers,
        INCLUDED.replace("{port}", &nginx.port.to_string()),
    )
    .unwrap();
    nginx.signal("HUP");
    nginx.wait_for_worker();
    nginx.wait_workers(1);
    let pid = nginx.pid().to_string();
    let lines = Tool::start(&["--pid", &pid, "--json", "--config-lines"], 1);
    let plain = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for uri in ["/group/", "/direct/", "/file/"] {
        send(&mut client, "GET", uri, "test");
    }
    drop(client);
    let file = nginx.prefix().join("nginx.conf");
    let text = fs::read_to_string(&file).unwrap();
    nginx.quit();
    let group = text
        .lines()
        .position(|line| line.contains("upstream group"));
    let group = format!("{}:{}", file.display(), group.unwrap() + 1);
    let (server, direct) = (
        format!("{}:2", servers.display()),
        format!("{}:5", servers.display()),
    );
    let (ended, without) = (lines.wait(), plain.wait());
    let records = ended.records();
    let found: Vec<_> = records
        .iter()
        .map(|record| &record.place.config)
        .map(|config| (config.server.as_deref(), config.upstream.as_deref()))
        .collect();
    let server = Some(&*server);
    let expected = [
        (server, Some(&*group)),
        (server, Some(&*direct)),
        (server, None),
    ];
    assert_eq!(found, expected);
    let without = without.records();
    assert!(without.iter().all(|record| record.place.config.is_empty()));
    assert_eq!(without.len(), 3);
}

/// The servers of a test with so many locations that they can't all be remembered, in each of two servers.
fn many(count: usize) -> String {
    let servers = ["one", "two"].map(|server| {
        let locations = (0..count).map(|n| format!("location = /{n} {{ return 200; }}\n"));
        let locations: String = locations.collect();
        format!("server {{ listen 127.0.0.1:{{port}}; server_name {server}; {locations} }}\n")
    });
    servers.concat()
}

/// Check that each request has its own location where there are many, several workers serve them, and the
/// configuration is read again with other names in the meantime.
#[test]
fn many_locations_and_reload() {
    const COUNT: usize = 300;
    let nginx = Nginx::start(&Config {
        http: &many(COUNT),
        workers: 2,
        ..Config::default()
    });
    let tool = Tool::trace(nginx.pid());
    let ask = |renamed: &str| {
        for n in 0..2 * COUNT {
            let mut client = Client::connect(nginx.port);
            for host in ["one", "two"] {
                send(
                    &mut client,
                    "GET",
                    &format!("/{renamed}{}", n % COUNT),
                    host,
                );
            }
        }
    };
    ask("");
    rename(&nginx);
    nginx.wait_for_worker();
    nginx.wait_for_worker();
    nginx.wait_workers(2);
    ask("new-");
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_eq!(records.len(), 8 * COUNT);
    let served: BTreeSet<u32> = records.iter().map(|record| record.pid).collect();
    assert!(served.len() >= 3, "{served:?}");
    for record in &records {
        let uri = record.uri.as_deref();
        assert_eq!(place(record), (uri, record.http_host.as_deref()));
    }
    assert_equal(&records, &logged);
}

/// Gives all locations other names, and lets nginx read them.
fn rename(nginx: &Nginx) {
    let file = nginx.prefix().join("nginx.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("location = /", "location = /new-")).unwrap();
    nginx.signal("HUP");
}

/// Check an nginx without a master, each of whose requests announces its location.
#[test]
fn without_master() {
    let nginx = Nginx::start(&Config {
        http: &many(3),
        main: "master_process off;",
        workers: 0,
        ..Config::default()
    });
    nginx.wait_for_log("OS: Linux");
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for n in 0..30 {
        send(&mut client, "GET", &format!("/{}", n % 3), "two");
    }
    drop(client);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_eq!(records.len(), 30);
    for record in &records {
        assert_eq!(place(record), (record.uri.as_deref(), Some("two")));
    }
    assert_equal(&records, &logged);
}
