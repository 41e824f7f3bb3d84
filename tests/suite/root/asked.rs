// SPDX-License-Identifier: MIT OR Apache-2.0
//! What options ask for: `--variable` and `--header`.

use std::collections::BTreeMap;
use std::fs;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::tool::Tool;
use crate::suite::root::requests::traced_with;

/// Variables of every kind. The log of `$request_id` is of requests that have evaluated it before they end.
const HTTP: &str = "
    map $arg_a $mapped { default other; x m; }
    log_format id '$request_id';
    server {
        listen 127.0.0.1:{port};
        location /set/ { set $one 1; set $Two '$arg_a?sig=secret'; return 200; }
        location /mapped/ { add_header X-Mapped $mapped; return 200; }
        location /id/ { add_header X-Id $request_id; access_log {prefix}/access.log truth;
                        access_log {prefix}/id.log id; return 200; }
        location /plain/ { return 200; }
        location /renamed/ { set $later 2; return 200; }
    }";

/// Returns a map of texts.
fn map(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    let values = values.iter();
    values
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Returns the variables, and the headers, of each record.
fn asked(records: &[Record]) -> Vec<[BTreeMap<String, String>; 2]> {
    let places = records.iter().map(|record| &record.place);
    places
        .map(|place| {
            [&place.variables, &place.headers].map(|values| {
                let values = values.iter();
                values
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect()
            })
        })
        .collect()
}

/// Lets nginx read its configuration again, with more variables before the others.
fn add_variables(nginx: &Nginx) {
    let file = nginx.prefix().join("nginx.conf");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("map $arg_a", "map $arg_b $first { default f; }\nmap $arg_a");
    fs::write(
        &file,
        text.replace(
            "location /plain/",
            "location /p { set $before 0; }\nlocation /plain/",
        ),
    )
    .unwrap();
    nginx.signal("HUP");
    nginx.wait_for_worker();
    nginx.wait_for_worker();
    nginx.wait_workers(2);
}

/// Check variables of the rewrite module, of a map, and nginx's own, each where it was evaluated and nowhere else;
/// in two workers, and after a reload that gives them other indices.
#[test]
fn variables() {
    if is_built_without(REWRITE) {
        return;
    }
    let nginx = Nginx::start(&Config {
        http: HTTP,
        workers: 2,
        ..Config::default()
    });
    let options = [
        "--variable=$one",
        "--variable=two",
        "--variable=mapped",
        "--variable=request_id",
        "--variable=status",
        "--variable=no_such",
    ];
    let uris = ["/set/?a=x", "/mapped/?a=x", "/mapped/", "/plain/", "/id/"];
    let ask = |nginx: &Nginx| {
        for _ in 0..10 {
            let mut client = Client::connect(nginx.port);
            for uri in uris {
                client.get(uri);
            }
        }
    };
    let mut ids = String::new();
    let records = traced_with(nginx, &options, |nginx| {
        ask(nginx);
        add_variables(nginx);
        ask(nginx);
        nginx.wait_logged(20 * uris.len());
        ids = fs::read_to_string(nginx.prefix().join("id.log")).unwrap();
    });
    assert_eq!(records.len(), 20 * uris.len());
    let mut found = Vec::new();
    for (record, [variables, headers]) in records.iter().zip(asked(&records)) {
        assert!(headers.is_empty());
        let expected = match record.request_uri.as_deref().unwrap() {
            "/set/?a=x" => map(&[("one", "1"), ("two", "x?sig=REDACTED")]),
            "/mapped/?a=x" => map(&[("mapped", "m")]),
            "/mapped/" => map(&[("mapped", "other")]),
            "/plain/" => map(&[]),
            _ => {
                found.push(variables["request_id"].clone());
                continue;
            }
        };
        assert_eq!(variables, expected, "{record:#?}");
    }
    let mut ids: Vec<_> = ids.lines().map(str::to_owned).collect();
    ids.sort();
    found.sort();
    assert_eq!(found, ids);
}

/// Check headers in any case, among many, twice, empty, long, and absent ones.
#[test]
fn headers() {
    let nginx = Nginx::simple();
    let long = "v".repeat(600);
    let all = [
        (String::new(), map(&[])),
        ("x-one: a\r\n".to_owned(), map(&[("x-one", "a")])),
        (
            "X-ONE: a b\r\nX-Two:c\r\n".to_owned(),
            map(&[("x-one", "a b"), ("x-two", "c")]),
        ),
        (
            format!("{}X-Two: far\r\n", "X-Many: 1\r\n".repeat(70)),
            map(&[("x-two", "far")]),
        ),
        (
            "X-One: first\r\nX-One: second\r\n".to_owned(),
            map(&[("x-one", "first")]),
        ),
        (
            "X-One:\r\nX-One: second\r\nX-Two: 2\r\n".to_owned(),
            map(&[("x-two", "2")]),
        ),
        ("X-One:\r\nX-On: 1\r\nX-One2: 1\r\n".to_owned(), map(&[])),
        (
            format!("X-One: {long}\r\n"),
            map(&[("x-one", &long[..512])]),
        ),
    ];
    let options = ["--header=X-One", "--header=x-two", "--max-line=none"];
    let records = traced_with(nginx, &options, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (headers, _) in &all {
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
            client.receive();
        }
    });
    let found = asked(&records);
    assert_eq!(found.len(), all.len());
    for ([variables, headers], (_, expected)) in found.iter().zip(&all) {
        assert!(variables.is_empty());
        assert_eq!(headers, expected);
    }
    let cut: Vec<bool> = records
        .iter()
        .map(|record| !record.truncated.is_empty())
        .collect();
    assert_eq!(cut, [false, false, false, false, false, false, false, true]);
}

/// Check headers whose names nginx does not hash completely, names that differ by one bit only, and the last
/// header that is searched.
#[test]
fn unusual_headers() {
    const ALL: &[(&str, &str)] = &[("x.two_3", "b"), ("x^y", "c")];
    for (directive, has_one, late) in [
        (
            "underscores_in_headers off; ignore_invalid_headers on;",
            false,
            &[][..],
        ),
        (
            "underscores_in_headers off; ignore_invalid_headers off;",
            true,
            ALL,
        ),
        (
            "underscores_in_headers on; ignore_invalid_headers off;",
            true,
            ALL,
        ),
        ("underscores_in_headers on;", true, &[]),
    ] {
        let http = "server { listen 127.0.0.1:{port}; location / { } ";
        let nginx = Nginx::with(&[http, directive, "}"].concat(), 0);
        let names = ["X_One", "last", "___", "X.Two_3", "x^y", "XTwo3"];
        let options = names.map(|name| format!("--header={name}"));
        let records = traced_with(nginx, &options.each_ref().map(String::as_str), |nginx| {
            let mut client = Client::connect(nginx.port);
            for count in [0, 175, 176] {
                let many = "X-Many: 1\r\n".repeat(count);
                client.send(format!(
                    "GET / HTTP/1.1\r\nHost: test\r\nXOne: no\r\nXTwo3: d\r\nx_ONE: a\r\n{many}Last: z\r\n\
                     XTwo_3: no\r\nx.tWO_3: b\r\nX~Y: no\r\nX^Y: c\r\n\r\n"
                ));
                client.receive();
            }
        });
        let found: Vec<_> = asked(&records)
            .into_iter()
            .map(|[_, headers]| headers)
            .collect();
        let mut early = vec![("xtwo3", "d")];
        early.extend(has_one.then_some(("x_one", "a")));
        let last = [("last", "z")];
        let near = [&early[..], &last, late].concat();
        let middle = [&early[..], &last].concat();
        /* With `x_one` there are 180 headers before the last. */
        let far = if has_one { early } else { middle.clone() };
        let expected = [near, middle, far];
        assert_eq!(found, expected.map(|headers| map(&headers)), "{directive}");
    }
}

/// Check that a header with a value is also a filter.
#[test]
fn filter() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let options = [
        "--pid",
        &pid,
        "--json",
        "--header=x-one=a",
        "--header=x-two",
    ];
    let tool = Tool::start(&options, 1);
    let mut client = Client::connect(nginx.port);
    for headers in [
        "X-One: a\r\nX-Two: t\r\n",
        "X-One: ab\r\n",
        "",
        "X-One: A\r\n",
        "X-One: a\r\n",
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        client.receive();
    }
    drop(client);
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    let found: Vec<_> = asked(&records)
        .into_iter()
        .map(|[_, headers]| headers)
        .collect();
    assert_eq!(
        found,
        [
            map(&[("x-one", "a"), ("x-two", "t")]),
            map(&[("x-one", "a")])
        ]
    );
}
