// SPDX-License-Identifier: MIT OR Apache-2.0
//! What OpenTelemetry's semantic conventions make of keys that become several attributes, or none of which is the
//! key itself.

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
        add_address(host, add);
    }
    if let Some(status) = request.status {
        add("http.response.status_code", Value::Number(status.into()));
    }
    with_error_type(request, |error| add("error.type", Value::Text(error)));
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

/// Adds `server.address` and `server.port` of a name or an address, with or without a port.
pub(super) fn add_address(address: &str, add: &mut dyn FnMut(&'static str, Value<'_>)) {
    let (name, port) = host_and_port(address);
    add("server.address", Value::Text(without_brackets(name)));
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
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

/// Calls `with` with the value of `error.type`, if the request has one: a status of 500 and above; else the failure
/// that cut the response short, which is that of the last attempt that the client waited for.
pub fn with_error_type(request: &Request<'_>, with: impl FnOnce(&str)) {
    if let Some(status) = request.status.filter(|status| *status >= SERVER_ERROR) {
        return with(&status.to_string());
    }
    let failure = request.last_awaited().and_then(|last| last.failure);
    if let Some(failure) = failure.filter(|failure| *failure != Failure::ClientClosed) {
        with(failure.name());
    }
}
