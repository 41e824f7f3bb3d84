// SPDX-License-Identifier: MIT OR Apache-2.0
//! What requests are grouped by.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::host::host_and_port;
use crate::request::Request;

/// A key of requests to group them by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// `location`
    Location,
    /// `server_name`
    Server,
    /// `upstream_name`: the group.
    Upstream,
    /// `upstream_addr`: one server.
    Peer,
    /// `status`
    Status,
    /// `pid`
    Worker,
    /// `request_method`
    Method,
    /// `http_host`, in lower case and without a port.
    Host,
    /// `remote_addr`
    Client,
    /// `container_id`, its first 12 digits.
    Container,
    /// `namespace` and `pod`.
    Pod,
    /// A key of `variables`.
    Variable(String),
}

/// Their names, but `variable:NAME`.
const NAMES: [(&str, GroupKey); 11] = [
    ("location", GroupKey::Location),
    ("server", GroupKey::Server),
    ("upstream", GroupKey::Upstream),
    ("peer", GroupKey::Peer),
    ("status", GroupKey::Status),
    ("worker", GroupKey::Worker),
    ("method", GroupKey::Method),
    ("host", GroupKey::Host),
    ("client", GroupKey::Client),
    ("container", GroupKey::Container),
    ("pod", GroupKey::Pod),
];

/// The variable in which ingress-nginx has the service of Kubernetes that a request goes to.
const INGRESS_SERVICE: &str = "proxy_upstream_name";

/// What stands before the name of a variable.
const VARIABLE: &str = "variable:";

/// The digits of a container's id that are shown.
const ID_DIGITS: usize = 12;

/// Returns the service that a request goes to: that of its ingress, or else the group of its upstream.
pub fn service<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let service = request.place.variables.get(INGRESS_SERVICE);
    let service = service.or(request.place.upstream_name.as_ref());
    service.map(|service| &**service)
}

impl GroupKey {
    /// Returns the variable that records need for this key: its own, or of pods the service, which stands below them.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Variable(name) => Some(name),
            Self::Pod => Some(INGRESS_SERVICE),
            _ => None,
        }
    }

    /// Returns the value of this key. `None` when the request has none.
    pub fn of<'r>(&self, request: &'r Request<'_>) -> Option<Cow<'r, str>> {
        let text = |value: &'r Option<Cow<'_, str>>| value.as_deref().map(Cow::Borrowed);
        match self {
            Self::Location => text(&request.place.location),
            Self::Server => text(&request.place.server_name),
            Self::Upstream => text(&request.place.upstream_name),
            Self::Peer => text(&request.upstream_addr),
            Self::Status => request.status.map(|status| status.to_string().into()),
            Self::Worker => Some(request.pid.to_string().into()),
            Self::Method => text(&request.request_method),
            Self::Host => {
                let host = request.http_host.as_deref()?;
                Some(host_and_port(host).0.to_ascii_lowercase().into())
            }
            Self::Client => text(&request.remote_addr),
            Self::Container => {
                let id = request.container.container_id.as_deref()?;
                Some(id.get(..ID_DIGITS).unwrap_or(id).into())
            }
            Self::Pod => pod(request),
            Self::Variable(name) => {
                let value = request.place.variables.get(name.as_str())?;
                Some(Cow::Borrowed(value))
            }
        }
    }
}

/// Returns the pod of a request, after its namespace where that is known.
fn pod<'r>(request: &'r Request<'_>) -> Option<Cow<'r, str>> {
    let container = &request.container;
    let pod = container.pod.as_deref()?;
    Some(match container.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{pod}").into(),
        None => pod.into(),
    })
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Variable(name) = self {
            return write!(f, "{VARIABLE}{name}");
        }
        let name = NAMES.iter().find(|(_, key)| key == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for GroupKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(VARIABLE).filter(|name| !name.is_empty()) {
            let name = name.strip_prefix('$').unwrap_or(name);
            return Ok(Self::Variable(name.to_ascii_lowercase()));
        }
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, key)| key.clone()).ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name).join(", ");
            format!("it is none of {names} and {VARIABLE}NAME")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::GroupKey;
    use super::NAMES;
    use crate::request::Request;

    /// Check that each key is read as it is shown, and that others are refused.
    #[test]
    fn names() {
        for (name, key) in NAMES {
            assert_eq!(name.parse(), Ok(key.clone()));
            assert_eq!(key.to_string(), name);
        }
        let key: GroupKey = "variable:$Request_ID".parse().unwrap();
        assert_eq!(key.to_string(), "variable:request_id");
        for wrong in ["", "variable:", "uri"] {
            assert!(wrong.parse::<GroupKey>().is_err(), "{wrong}");
        }
    }

    /// Check the values of a request.
    #[test]
    fn values() {
        let mut request = Request {
            pid: 7,
            status: Some(404),
            http_host: Some("Shop.Example:8080".into()),
            ..Default::default()
        };
        request.container.container_id = Some("0123456789abcdef".into());
        request.container.pod = Some("web".into());
        request.place.variables.insert("a".into(), "b".into());
        for (key, expected) in [
            ("worker", Some("7")),
            ("status", Some("404")),
            ("host", Some("shop.example")),
            ("container", Some("0123456789ab")),
            ("pod", Some("web")),
            ("variable:a", Some("b")),
            ("location", None),
        ] {
            let key: GroupKey = key.parse().unwrap();
            assert_eq!(key.of(&request).as_deref(), expected, "{key}");
        }
        request.container.namespace = Some("shop".into());
        assert_eq!(GroupKey::Pod.of(&request).as_deref(), Some("shop/web"));
    }
}
