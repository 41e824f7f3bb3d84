// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record with the names of OpenTelemetry's semantic conventions: one flat JSON object a line,
//! its names sorted. A key for which the conventions have no stable name gets the prefix `nginx.`.

use std::io;
use std::ops::Range;

use serde::Serialize;

use super::Format;
use super::conventions;
use super::conventions::KnownMethods;
use super::conventions::Value;
use super::flat::flatten;
use super::json;
use super::names::Names;
use crate::blocked::Blocked;
use crate::connection::Connection;
use crate::lost::Lost;
use crate::request::Request;

/// Writes JSON lines.
pub struct Otel {
    /// The methods that are written by their names.
    known_methods: KnownMethods,
    names: Names,
    /// The attributes of the current line. They are kept to reuse their memory.
    attributes: Attributes,
}

impl Otel {
    /// Creates the format. `known_methods` is the value of `conventions::KNOWN_METHODS_VARIABLE`, if it is set.
    pub fn new(known_methods: Option<String>) -> Self {
        Self {
            known_methods: KnownMethods::new(known_methods),
            names: Names::new(),
            attributes: Attributes::default(),
        }
    }

    /// Adds all keys of a record except those that become several attributes.
    fn add_keys(&mut self, r#type: &str, record: &impl Serialize) -> io::Result<()> {
        self.attributes.clear();
        self.attributes.add("nginx.type", Value::Text(r#type));
        let (names, attributes) = (&self.names, &mut self.attributes);
        flatten(record, &mut |path, value| {
            if let Some((prefix, name)) = names.of(path) {
                attributes.add_json(prefix, name, value);
            }
        })
    }
}

impl Format for Otel {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
        self.add_keys("request", request)?;
        let attributes = &mut self.attributes;
        conventions::derived(request, &self.known_methods, &mut |name, value| {
            attributes.add(name, value);
        });
        attributes.write(line);
        Ok(())
    }

    fn connection(&mut self, line: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()> {
        self.add_keys("connection", connection)?;
        self.attributes.write(line);
        Ok(())
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
        self.add_keys("lost", lost)?;
        self.attributes.write(line);
        Ok(())
    }

    fn blocked(&mut self, line: &mut Vec<u8>, blocked: &Blocked<'_>) -> io::Result<()> {
        self.add_keys("blocked", blocked)?;
        self.attributes.write(line);
        Ok(())
    }

    fn width(&self, c: char) -> usize {
        json::width(c)
    }
}

/// Attributes: names and their JSON, which are written in the order of the names.
#[derive(Default)]
struct Attributes {
    /// The bytes of all names and values.
    bytes: Vec<u8>,
    /// The ranges of each name and of its value in `bytes`.
    places: Vec<(Range<usize>, Range<usize>)>,
}

impl Attributes {
    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// Adds an attribute.
    fn add(&mut self, name: &str, value: Value<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        match value {
            Value::Text(text) => json::write_string(&mut self.bytes, text),
            Value::Number(number) => json::write_number(&mut self.bytes, number),
        }
        self.places.push((start..middle, middle..self.bytes.len()));
    }

    /// Adds an attribute whose value is JSON.
    fn add_json(&mut self, prefix: &str, name: &str, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(prefix.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.places.push((start..middle, middle..self.bytes.len()));
    }

    /// Appends all attributes as one object. No name has to be escaped, since they are our own.
    fn write(&mut self, line: &mut Vec<u8>) {
        let bytes = &self.bytes;
        self.places
            .sort_unstable_by(|(one, _), (other, _)| bytes[one.clone()].cmp(&bytes[other.clone()]));
        let mut separator = b'{';
        for (name, value) in &self.places {
            line.push(separator);
            line.push(b'"');
            line.extend_from_slice(&bytes[name.clone()]);
            line.extend_from_slice(b"\":");
            line.extend_from_slice(&bytes[value.clone()]);
            separator = b',';
        }
        line.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use serde_json::json;

    use super::Otel;
    use crate::format::Format as _;
    use crate::lost::Lost;
    use crate::request::Request;
    use crate::schema;
    use crate::values::Cause;
    use crate::values::Cut;
    use crate::values::Scheme;

    /// Returns the attributes of a request.
    fn attributes(request: &Request<'_>) -> Value {
        let mut line = Vec::new();
        Otel::new(None).request(&mut line, request).unwrap();
        let attributes: Value = serde_json::from_slice(&line).unwrap();
        let schema = jsonschema::validator_for(&schema::otel()).unwrap();
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
            scheme: Scheme::Https,
            server_protocol: Some("HTTP/2.0".into()),
            http_host: Some("example.com:8443".into()),
            remote_addr: Some("::1".into()),
            remote_port: Some(2),
            truncated: vec![Cut::Uri],
            status: Some(503),
            connection_requests: Some(1),
            ..Default::default()
        };
        assert_eq!(
            attributes(&request),
            json!({
                "nginx.type": "request",
                "nginx.pid": 0,
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
            })
        );
    }

    /// Check unknown methods, hosts without a port, and uris without a query.
    #[test]
    fn parts() {
        let request = Request {
            request_method: Some("get".into()),
            request_uri: Some("*".into()),
            http_host: Some("[::1]".into()),
            connection_requests: Some(1),
            remote_addr: Some("unix:".into()),
            status: Some(499),
            ..Default::default()
        };
        let found = attributes(&request);
        assert_eq!(found["http.request.method"], "_OTHER");
        assert_eq!(found["http.request.method_original"], "get");
        assert_eq!(found["url.path"], "*");
        assert_eq!(found["server.address"], "::1");
        for absent in ["url.query", "server.port", "error.type"] {
            assert!(found.get(absent).is_none(), "{absent}");
        }
    }

    /// Check that a Host that was cut results in neither a name nor a port.
    #[test]
    fn cut_host() {
        let request = Request {
            http_host: Some("example.com:84".into()),
            remote_addr: Some("::1".into()),
            scheme: Scheme::Https,
            connection_requests: Some(1),
            truncated: vec![Cut::HttpHost],
            ..Default::default()
        };
        let found = attributes(&request);
        assert_eq!(found["nginx.truncated"], json!(["http_host"]));
        for absent in ["server.address", "server.port"] {
            assert!(found.get(absent).is_none(), "{absent}");
        }
    }

    /// Check that attempts and subrequests are flat, and that the schema names exactly the keys
    /// that are written for a request with every value.
    #[test]
    fn documented() {
        let found = attributes(&schema::longest());
        assert_eq!(found["nginx.upstreams.7.status"], 999);
        assert_eq!(found["nginx.subrequests.7.upstreams.3.reused"], false);
        let mut found: BTreeSet<String> = found.as_object().unwrap().keys().cloned().collect();
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        found.retain(|name| !name.split('.').any(is_number));
        /* These names are the user's; the schema has patterns for them. */
        let asked = ["nginx.variables.", "nginx.headers."];
        found.retain(|name| !asked.iter().any(|prefix| name.starts_with(prefix)));
        /* The longest record has a Host that was cut. */
        found.extend(["server.address", "server.port"].map(str::to_owned));
        let schema = schema::otel();
        let named = schema["$defs"]["request"]["properties"].as_object();
        assert_eq!(found, named.unwrap().keys().cloned().collect());
    }

    /// Check the line of a loss.
    #[test]
    fn lost() {
        let lost = Lost {
            time: "2026-11-22T17:17:57.972980760Z".to_owned(),
            count: 3,
            cause: Cause::RingFull,
        };
        let mut line = Vec::new();
        Otel::new(None).lost(&mut line, &lost).unwrap();
        let found: Value = serde_json::from_slice(&line).unwrap();
        let expected = json!({"nginx.type": "lost", "time": lost.time, "nginx.count": 3,
                              "nginx.cause": "ring_full"});
        assert_eq!(found, expected);
    }
}
