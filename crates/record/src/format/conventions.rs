// SPDX-License-Identifier: MIT OR Apache-2.0
//! What OpenTelemetry's semantic conventions make of keys that become several attributes, or none of which is the
//! key itself.

use std::borrow::Cow;

use crate::host::host_and_port;
use crate::host::without_brackets;
use crate::request::Request;
use crate::values::Cut;
use crate::values::Failure;

/// The environment variable that lists the methods that are not written as `_OTHER`, by the
/// conventions.
pub const KNOWN_METHODS_VARIABLE: &str = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS";

/// The methods that are not written as `_OTHER` when the variable is not set.
const KNOWN_METHODS: &str = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE";

/// The lowest status that means that the server has failed.
pub(super) const SERVER_ERROR: u32 = 500;

/// What stands for any other method.
const OTHER_METHOD: &str = "_OTHER";

/// The methods that are written by their names.
pub struct KnownMethods(Vec<String>);

impl KnownMethods {
    /// Takes the value of `KNOWN_METHODS_VARIABLE`, if it is set.
    pub fn new(variable: Option<String>) -> Self {
        let list = variable.as_deref().unwrap_or(KNOWN_METHODS).split(',');
        let methods = list.filter(|method| !method.is_empty());
        Self(methods.map(str::to_owned).collect())
    }

    /// Returns whether a method is written by its name.
    pub fn has(&self, method: &str) -> bool {
        self.0.iter().any(|known| known == method)
    }

    /// Returns the value of `http.request.method`.
    pub fn name<'m>(&self, method: &'m str) -> &'m str {
        if self.has(method) {
            method
        } else {
            OTHER_METHOD
        }
    }
}

/// Returns the value of `network.protocol.version` of a version of HTTP that exists, as nginx writes it. A client may state
/// others.
pub fn http_version(protocol: &str) -> Option<&'static str> {
    Some(match protocol {
        "HTTP/1.0" => "1.0",
        "HTTP/1.1" => "1.1",
        "HTTP/2.0" => "2",
        "HTTP/3.0" => "3",
        _ => return None,
    })
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// Calls `add` with each attribute that follows from the keys of a request which have no name of their own.
pub(super) fn derived(
    request: &Request<'_>,
    known: &KnownMethods,
    add: &mut dyn FnMut(&'static str, Value<'_>),
) {
    if let Some(method) = request.request_method.as_deref() {
        add_method(method, known, add);
    }
    if let Some(uri) = request.request_uri.as_deref() {
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        add("url.path", Value::Text(path));
        if let Some(query) = query {
            add("url.query", Value::Text(query));
        }
    }
    if let Some(protocol) = request.server_protocol.as_deref() {
        add_protocol(protocol, add);
    }
    /* A port that was cut is another port. */
    if let Some(host) = request.http_host.as_deref()
        && !request.truncated.contains(&Cut::HttpHost)
    {
        add_server(name_and_port(host), add);
    }
    if let Some(status) = request.status {
        add("http.response.status_code", Value::Number(status.into()));
    }
    if let Some(error) = error_type(request) {
        add("error.type", Value::Text(&error));
    }
}

/// Adds `http.request.method`, and the original method when it is not a known one.
pub(super) fn add_method(
    method: &str,
    known: &KnownMethods,
    add: &mut dyn FnMut(&'static str, Value<'_>),
) {
    add("http.request.method", Value::Text(known.name(method)));
    if !known.has(method) {
        add("http.request.method_original", Value::Text(method));
    }
}

/// Returns what an address of nginx's upstreams says about the server: its name without the brackets of IPv6, or the path
/// of a unix socket, and its port if it has one.
pub fn server(addr: &str) -> (&str, Option<u16>) {
    match addr.strip_prefix("unix:") {
        Some(path) => (path, None),
        None => name_and_port(addr),
    }
}

/// Returns a name or an address without the brackets of IPv6, and its port if it has one.
fn name_and_port(text: &str) -> (&str, Option<u16>) {
    let (name, port) = host_and_port(text);
    let port = port.and_then(|port| port.parse().ok());
    (without_brackets(name), port)
}

/// Adds `server.address` and `server.port`.
pub(super) fn add_server(
    (name, port): (&str, Option<u16>),
    add: &mut dyn FnMut(&'static str, Value<'_>),
) {
    add("server.address", Value::Text(name));
    if let Some(port) = port {
        add("server.port", Value::Number(port.into()));
    }
}

/// Adds `network.protocol.name`, and `network.protocol.version`: 1.0, 1.1, 2, 3.
fn add_protocol(protocol: &str, add: &mut dyn FnMut(&'static str, Value<'_>)) {
    let Some((name, version)) = protocol.split_once('/') else {
        return;
    };
    let version = http_version(protocol).unwrap_or(version);
    match name {
        "HTTP" => add("network.protocol.name", Value::Text("http")),
        name => add("network.protocol.name", Value::Text(&name.to_lowercase())),
    }
    add("network.protocol.version", Value::Text(version));
}

/// Returns the value of `error.type`, if a request has one: a status of 500 and above; else the failure that cut the
/// response short, which is that of the last attempt that the client waited for.
pub fn error_type(request: &Request<'_>) -> Option<Cow<'static, str>> {
    if let Some(status) = request.status.filter(|status| *status >= SERVER_ERROR) {
        return Some(status.to_string().into());
    }
    let failure = request.last_awaited()?.failure?;
    (failure != Failure::ClientClosed).then(|| failure.name().into())
}

#[cfg(test)]
mod tests {
    use super::server;

    /// Check the server of each form of address.
    #[test]
    fn servers() {
        for (addr, expected) in [
            ("10.0.0.1:80", ("10.0.0.1", Some(80))),
            ("[::1]:81", ("::1", Some(81))),
            ("unix:/run/app", ("/run/app", None)),
            ("unix:/run/[a]:80", ("/run/[a]:80", None)),
            ("app", ("app", None)),
            ("app:99999", ("app", None)),
        ] {
            assert_eq!(server(addr), expected);
        }
    }
}
