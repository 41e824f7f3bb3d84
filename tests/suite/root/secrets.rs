// SPDX-License-Identifier: MIT OR Apache-2.0
//! No record contains a secret of a query string, in any format.

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;

/// Request targets with one secret each, in the forms that clients may use.
const TARGETS: [&str; 7] = [
    "/a?b=1&sig=SECRET&c=2",
    "/a?X-Amz-Signature=SECRET",
    "/a?si%67=SECRET",
    "http://test/a?Signature=SECRET",
    "http://user:SECRET@test/a?b",
    "/a%3Fsig=SECRET",
    "/a?u=http%3A%2F%2Fb%2F%3Fsig%3DSECRET&c",
];

/// Traces these requests.
fn trace(args: &[&str]) -> Ended {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&[&["--pid", &pid], args].concat(), 1);
    for target in TARGETS {
        let mut client = Client::connect(nginx.port);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ));
        client.rest();
    }
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.stdout.len(), TARGETS.len());
    ended
}

/// Check that no line contains a secret, and that the rest of the query is there, or is not with
/// `--no-query`.
#[test]
fn redacted() {
    let json = trace(&["--json"]);
    assert!(!json.stdout.concat().contains("SECRET"), "{json:?}");
    let uris = json.records();
    let uris: Vec<_> = uris.iter().map(|r| r.request_uri.as_deref()).collect();
    assert_eq!(uris[0], Some("/a?b=1&sig=REDACTED&c=2"));
    let text = trace(&["--format", "text"]);
    assert!(!text.stdout.concat().contains("SECRET"), "{text:?}");
    let without = trace(&["--json", "--no-query"]);
    assert!(!without.stdout.concat().contains("SECRET"), "{without:?}");
    for record in without.records() {
        let uri = record.request_uri.as_deref().or(record.uri.as_deref());
        assert!(matches!(uri, Some("/a") | None), "{uri:?}");
    }
    let all = trace(&["--json", "--redact", "none"]);
    assert!(all.stdout[0].contains("sig=SECRET"), "{all:?}");
}
