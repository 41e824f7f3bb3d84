// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON record under the names of OpenTelemetry's semantic conventions: one flat object a line.
//! What the conventions have no stable name for is nginx's: `nginx.` and the key of the JSON record.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use super::Sink;
use super::json;
use crate::pipeline::filter::host_and_port;
use crate::record::lost::Lost;
use crate::record::request::Request;

/// Flat attributes.
type Attributes = Map<String, Value>;

/// What becomes of a key.
enum Name {
    /// Another name.
    Is(&'static str),
    /// Other names for its parts.
    Parts(fn(&Otel, &str, &mut Attributes)),
    /// Of a number: a name, and what else follows from it.
    Status,
}

/// Keys of the JSON record that have a stable name; `time` and `trace_id` become
/// the event's own.
const NAMES: [(&str, Name); 14] = [
    ("time", Name::Is("time")),
    ("remote_addr", Name::Is("client.address")),
    ("remote_port", Name::Is("client.port")),
    ("peer_addr", Name::Is("network.peer.address")),
    ("peer_port", Name::Is("network.peer.port")),
    ("server_addr", Name::Is("network.local.address")),
    ("server_port", Name::Is("network.local.port")),
    ("scheme", Name::Is("url.scheme")),
    ("trace_id", Name::Is("trace_id")),
    ("http_host", Name::Parts(host)),
    ("server_protocol", Name::Parts(protocol)),
    ("request_method", Name::Parts(method)),
    ("request_uri", Name::Parts(uri)),
    ("status", Name::Status),
];

/// Methods that are not `_OTHER`, unless the variable below says which.
const KNOWN_METHODS: &str = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE";

/// The conventions ask for this way to name others.
const KNOWN_METHODS_VARIABLE: &str = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS";

/// From here on the server has failed.
const SERVER_ERROR: u64 = 500;

/// Writes JSON lines.
pub struct Otel {
    /// Methods told by their names, with commas between them.
    known_methods: String,
}

impl Otel {
    /// With the methods that the environment names.
    pub fn new() -> Self {
        let known_methods = std::env::var(KNOWN_METHODS_VARIABLE);
        Self {
            known_methods: known_methods.unwrap_or_else(|_| KNOWN_METHODS.to_owned()),
        }
    }

    /// Appends a record.
    fn write(&self, line: &mut Vec<u8>, r#type: &str, record: &impl Serialize) -> Result<()> {
        let record = serde_json::to_value(record).context("failed to encode a record")?;
        let mut attributes = Attributes::new();
        attributes.insert("nginx.type".to_owned(), r#type.into());
        let cut = record.get("truncated").and_then(Value::as_array);
        let is_cut = |key: &str| cut.is_some_and(|cut| cut.contains(&key.into()));
        for (key, value) in record.as_object().into_iter().flatten() {
            /* What is left of a port is another port. */
            if key != "http_host" || !is_cut(key) {
                self.add(&mut attributes, key, value);
            }
        }
        if let Some(failure) = cut_short(&record) {
            let name = "error.type".to_owned();
            attributes.entry(name).or_insert_with(|| failure.clone());
        }
        json::write_object(line, &attributes)
    }

    /// Adds what a key of the JSON record becomes.
    fn add(&self, attributes: &mut Attributes, key: &str, value: &Value) {
        let name = NAMES.iter().find(|(known, _)| *known == key);
        match (name.map(|(_, name)| name), value) {
            (Some(Name::Is(name)), value) => {
                attributes.insert((*name).to_owned(), value.clone());
            }
            (Some(Name::Parts(parts)), Value::String(text)) => parts(self, text, attributes),
            (Some(Name::Status), Value::Number(status)) => {
                attributes.insert("http.response.status_code".to_owned(), value.clone());
                if status.as_u64() >= Some(SERVER_ERROR) {
                    attributes.insert("error.type".to_owned(), status.to_string().into());
                }
            }
            _ => flatten(attributes, format!("nginx.{key}"), value),
        }
    }
}

impl Sink for Otel {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> Result<()> {
        self.write(line, "request", request)
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> Result<()> {
        self.write(line, "lost", lost)
    }

    fn writes(&self, _: &str) -> bool {
        true
    }

    fn width(&self, c: char) -> usize {
        json::width(c)
    }
}

/// What cut the response short: why the last attempt that the client waited for failed.
fn cut_short(record: &Value) -> Option<&Value> {
    let attempts = record.get("upstreams")?.as_array()?;
    let mut awaited = attempts.iter().rev();
    let last = awaited.find(|attempt| attempt.get("post_action").is_none())?;
    last.get("failure")
        .filter(|failure| *failure != "client_closed")
}

/// Objects, and arrays of them, become keys with dots; arrays of strings may stay.
fn flatten(attributes: &mut Attributes, name: String, value: &Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                flatten(attributes, format!("{name}.{key}"), value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (n, value) in items.iter().enumerate() {
                flatten(attributes, format!("{name}.{n}"), value);
            }
        }
        value => {
            attributes.insert(name, value.clone());
        }
    }
}

/// `http.request.method`, and what it really was.
fn method(otel: &Otel, method: &str, attributes: &mut Attributes) {
    let name = "http.request.method".to_owned();
    if otel.known_methods.split(',').any(|known| known == method) {
        attributes.insert(name, method.into());
    } else {
        attributes.insert(name, "_OTHER".into());
        attributes.insert("http.request.method_original".to_owned(), method.into());
    }
}

/// `url.path`, `url.query`
fn uri(_: &Otel, uri: &str, attributes: &mut Attributes) {
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    attributes.insert("url.path".to_owned(), path.into());
    if let Some(query) = query {
        attributes.insert("url.query".to_owned(), query.into());
    }
}

/// `server.address`, `server.port`: what the client has asked for.
fn host(_: &Otel, host: &str, attributes: &mut Attributes) {
    let (name, port) = host_and_port(host);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    attributes.insert("server.address".to_owned(), address.unwrap_or(name).into());
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        attributes.insert("server.port".to_owned(), port.into());
    }
}

/// `network.protocol.name`, `network.protocol.version`: 1.0, 1.1, 2, 3.
fn protocol(_: &Otel, protocol: &str, attributes: &mut Attributes) {
    let Some((name, version)) = protocol.split_once('/') else {
        return;
    };
    let version = match version {
        "2.0" => "2",
        "3.0" => "3",
        version => version,
    };
    attributes.insert(
        "network.protocol.name".to_owned(),
        name.to_lowercase().into(),
    );
    attributes.insert("network.protocol.version".to_owned(), version.into());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use serde_json::json;

    use super::Otel;
    use crate::output::Sink as _;
    use crate::record::lost::Lost;
    use crate::record::request::Request;

    /// The documentation of every name.
    const DOCUMENT: &str = include_str!("../../docs/otel.md");

    /// The schema of these records.
    const SCHEMA: &str = include_str!("../../docs/schema/otel.json");

    /// The attributes of a request.
    fn attributes(request: &Request<'_>) -> Value {
        let mut line = Vec::new();
        Otel::new().request(&mut line, request).unwrap();
        let attributes: Value = serde_json::from_slice(&line).unwrap();
        let schema = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
        schema.validate(&attributes).unwrap();
        attributes
    }

    /// Check the names of a common request, and that nothing of it is missing.
    #[test]
    fn names() {
        let request = Request {
            request_method: Some("GET".into()),
            request_uri: Some("/a?b=c?d".into()),
            uri: Some("/a".into()),
            scheme: "https",
            server_protocol: Some("HTTP/2.0".into()),
            http_host: Some("example.com:8443".into()),
            remote_addr: Some("::1".into()),
            remote_port: Some(2),
            truncated: vec!["uri"],
            status: Some(503),
            connection_requests: 1,
            ..Default::default()
        };
        assert_eq!(
            attributes(&request),
            json!({
                "nginx.type": "request",
                "nginx.pid": 0,
                "nginx.connection": 0,
                "nginx.connection_requests": 1,
                "client.address": "::1",
                "client.port": 2,
                "url.scheme": "https",
                "url.path": "/a",
                "url.query": "b=c?d",
                "nginx.uri": "/a",
                "network.protocol.name": "http",
                "network.protocol.version": "2",
                "http.request.method": "GET",
                "server.address": "example.com",
                "server.port": 8443,
                "nginx.truncated": ["uri"],
                "http.response.status_code": 503,
                "error.type": "503",
                "nginx.response_size": 0,
            })
        );
    }

    /// Check methods that no one knows, hosts without a port, uris without a query.
    #[test]
    fn parts() {
        let request = Request {
            request_method: Some("get".into()),
            request_uri: Some("*".into()),
            http_host: Some("[::1]".into()),
            scheme: "http",
            connection_requests: 1,
            remote_addr: Some("unix:".into()),
            status: Some(499),
            ..Default::default()
        };
        let told = attributes(&request);
        assert_eq!(told["http.request.method"], "_OTHER");
        assert_eq!(told["http.request.method_original"], "get");
        assert_eq!(told["url.path"], "*");
        assert_eq!(told["server.address"], "::1");
        for absent in ["url.query", "server.port", "error.type"] {
            assert!(told.get(absent).is_none(), "{absent}");
        }
    }

    /// Check that of a Host that was cut neither name nor port is told.
    #[test]
    fn cut_host() {
        let request = Request {
            http_host: Some("example.com:84".into()),
            remote_addr: Some("::1".into()),
            scheme: "https",
            connection_requests: 1,
            truncated: vec!["http_host"],
            ..Default::default()
        };
        let told = attributes(&request);
        assert_eq!(told["nginx.truncated"], json!(["http_host"]));
        for absent in ["server.address", "server.port"] {
            assert!(told.get(absent).is_none(), "{absent}");
        }
    }

    /// Check that attempts and subrequests are flat, and that documentation and schema name all that
    /// is told, and nothing else.
    #[test]
    fn documented() {
        let told = attributes(&Request::longest());
        assert_eq!(told["nginx.upstreams.7.status"], 7);
        assert_eq!(told["nginx.subrequests.7.upstreams.3.reused"], false);
        let told = told.as_object().unwrap();
        assert!(told.values().all(|value| !value.is_object()));
        let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.filter_map(|row| row.split(" | ").nth(1));
        let documented: BTreeSet<&str> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect();
        let stable = |key: &&str| !key.starts_with("nginx.");
        let told_stable: BTreeSet<&str> = told.keys().map(String::as_str).filter(stable).collect();
        assert_eq!(documented, told_stable);
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        for key in schema["$defs"]["request"]["properties"]
            .as_object()
            .unwrap()
            .keys()
        {
            let is_told = told.contains_key(key) || key == "nginx.truncated";
            assert!(is_told, "{key}");
        }
    }

    /// Check a loss.
    #[test]
    fn lost() {
        let lost = Lost {
            time: "2026-11-22T17:17:57.972980760Z".to_owned(),
            count: 3,
            cause: "ring_full",
        };
        let mut line = Vec::new();
        Otel::new().lost(&mut line, &lost).unwrap();
        let told: Value = serde_json::from_slice(&line).unwrap();
        let expected = json!({"nginx.type": "lost", "time": lost.time, "nginx.count": 3,
                              "nginx.cause": "ring_full"});
        assert_eq!(told, expected);
    }
}
