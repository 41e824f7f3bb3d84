// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resource that spans belong to: a worker of an nginx.

use std::io;

use super::attributes::Attributes;
use crate::container::Container;
use crate::format::conventions::Value;
use crate::request::Request;

/// `service.name` where neither an option nor a `server_name` gives one.
const SERVICE: &str = "nginx";

/// What of the resource the records do not have.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// `service.name`. `None`: that of a request is its `server_name`.
    pub service: Option<String>,
    /// `host.name`
    pub host_name: Option<String>,
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    service: String,
    /// The pid of the worker; 0: it is no worker.
    pid: u32,
    container: Container<'static>,
}

impl Resource {
    /// Returns that of a request.
    pub fn of(request: &Request<'_>, identity: &Identity) -> Self {
        Self::new(service(request, identity), request.pid, &request.container)
    }

    /// Returns that of a record without a server. The pid 0 stands for no worker.
    pub fn without_server(identity: &Identity, pid: u32, container: &Container<'_>) -> Self {
        let service = identity.service.as_deref().unwrap_or(SERVICE);
        Self::new(service, pid, container)
    }

    /// Returns that of a service whose worker this is.
    fn new(service: &str, pid: u32, container: &Container<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| {
            text.as_ref().map(|text| text.clone().into_owned().into())
        };
        Self {
            service: service.to_owned(),
            pid,
            container: Container {
                container_id: owned(&container.container_id),
                pod_uid: owned(&container.pod_uid),
                pod: owned(&container.pod),
                namespace: owned(&container.namespace),
            },
        }
    }

    /// Returns whether a request belongs to it.
    pub fn has(&self, request: &Request<'_>, identity: &Identity) -> bool {
        self.pid == request.pid
            && self.service == service(request, identity)
            && self.container == request.container
    }

    /// Appends it as the member `resource` of an object.
    pub fn write(&self, out: &mut Vec<u8>, identity: &Identity) -> io::Result<()> {
        out.extend_from_slice(b"\"resource\":{");
        let mut attributes = Attributes::open(out);
        attributes.add("service.name", Value::Text(&self.service))?;
        let container = &self.container;
        for (name, value) in [
            ("host.name", identity.host_name.as_deref()),
            ("container.id", container.container_id.as_deref()),
            ("k8s.pod.uid", container.pod_uid.as_deref()),
            ("k8s.pod.name", container.pod.as_deref()),
            ("k8s.namespace.name", container.namespace.as_deref()),
        ] {
            if let Some(value) = value {
                attributes.add(name, Value::Text(value))?;
            }
        }
        if self.pid != 0 {
            attributes.add("process.pid", Value::Number(self.pid.into()))?;
        }
        attributes.close();
        out.push(b'}');
        Ok(())
    }
}

/// Returns the name of the service that a request belongs to. A `server_name` without a letter or digit, such as `_`,
/// is none.
fn service<'r>(request: &'r Request<'_>, identity: &'r Identity) -> &'r str {
    let of_server = request.place.server_name.as_deref();
    let of_server = of_server.filter(|name| name.contains(char::is_alphanumeric));
    identity.service.as_deref().or(of_server).unwrap_or(SERVICE)
}
