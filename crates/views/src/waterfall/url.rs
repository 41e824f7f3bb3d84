// SPDX-License-Identifier: MIT OR Apache-2.0
//! The URL of a request, in the characters that a URL may have.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::net::Ipv6Addr;

use ngx_bpf_record::Request;
use ngx_bpf_record::host::host_and_port;
use ngx_bpf_record::host::without_brackets;

/// The characters that a host may have besides letters and digits, and those that may follow it.
const OF_HOST: &str = "-._~!$&'()*+,;=%";
const OF_PATH: &str = "-._~!$&'()*+,;=%:@/?";

/// Returns the URL that a request asked for. Where it has no `Host` the address of the server is in its place, as far as
/// that is known.
pub fn url(request: &Request<'_>) -> String {
    let scheme = request.scheme;
    let host = request.http_host.as_deref().map(host);
    let host = host.or_else(|| address(request)).unwrap_or_default();
    let uri = request.request_uri.as_deref().unwrap_or_default();
    let uri = encoded(uri, OF_PATH);
    let slash = if uri.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}{slash}{uri}")
}

/// Returns the parts of the query of a request, each with its name and value as they are in the URL.
pub fn query<'a>(request: &'a Request<'_>) -> Vec<(&'a str, &'a str)> {
    let uri = request.request_uri.as_deref().unwrap_or_default();
    let Some((_, query)) = uri.split_once('?') else {
        return Vec::new();
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .collect()
}

/// Returns the address of the server that the kernel knows. `None` where the listener has a unix socket.
pub fn server_ip(request: &Request<'_>) -> Option<IpAddr> {
    request.server_addr.as_deref()?.parse().ok()
}

/// Returns the address and the port of the server, as a host.
fn address(request: &Request<'_>) -> Option<String> {
    let address = match server_ip(request)? {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let port = request.server_port.map(|port| format!(":{port}"));
    Some(address + &port.unwrap_or_default())
}

/// Returns the host of a URL.
fn host(host: &str) -> String {
    let (name, port) = host_and_port(host);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    match without_brackets(name).parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]{port}"),
        Err(_) => encoded(name, OF_HOST) + &port,
    }
}

/// Returns a text in which every byte is percent-encoded that is no letter, no digit and none of these. A `%` that
/// begins no such byte is one itself.
fn encoded(text: &str, allowed: &str) -> String {
    let bytes = text.as_bytes();
    let mut url = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let c = char::from(*byte);
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        let begins_byte = digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit);
        let is_allowed = c.is_ascii_alphanumeric() || allowed.contains(c);
        if is_allowed && (c != '%' || begins_byte) {
            url.push(c);
        } else {
            /* Writing to a string does not fail. */
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::query;
    use super::url;
    use ngx_bpf_record::Request;

    /// Check URLs of good and of hostile requests.
    #[test]
    fn urls() {
        for (host, uri, expected) in [
            (Some("a.b:80"), Some("/c?d=%20"), "http://a.b:80/c?d=%20"),
            (Some("[::1]:80"), Some("/"), "http://[::1]:80/"),
            (
                Some("<b>"),
                Some("/\x1b\u{202e}%%"),
                "http://%3Cb%3E/%1B%E2%80%AE%25%25",
            ),
            (None, Some("/"), "http://10.0.0.1:81/"),
            (Some("a"), None, "http://a/"),
            (Some("a"), Some("*"), "http://a/*"),
        ] {
            let request = Request {
                http_host: host.map(Into::into),
                request_uri: uri.map(Into::into),
                server_addr: Some("10.0.0.1".into()),
                server_port: Some(81),
                ..Default::default()
            };
            assert_eq!(url(&request), expected);
        }
    }

    /// Check the parts of a query.
    #[test]
    fn queries() {
        let request = Request {
            request_uri: Some("/a?b=c=d&e&&=f".into()),
            ..Default::default()
        };
        assert_eq!(query(&request), [("b", "c=d"), ("e", ""), ("", "f")]);
    }
}
