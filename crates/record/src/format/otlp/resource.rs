// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resource that spans belong to: a worker of an nginx.

use std::borrow::Cow;

use super::attributes::Attributes;
use crate::container::Container;
use crate::format::conventions::Value;

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

impl Identity {
    /// Returns the name of the service that a record of this server belongs to. A `server_name` without a letter or
    /// digit, such as `_`, is none.
    pub(super) fn service<'i>(&'i self, server_name: Option<&'i str>) -> &'i str {
        let server_name = server_name.filter(|name| name.contains(char::is_alphanumeric));
        self.service.as_deref().or(server_name).unwrap_or(SERVICE)
    }
}

/// A resource.
pub(super) struct Resource {
    service: String,
    /// The pid of the worker; 0: it is no worker.
    pid: u32,
    container: Container<'static>,
}

impl Resource {
    /// Returns that of a service whose worker this is.
    pub fn new(service: &str, pid: u32, container: &Container<'_>) -> Self {
        let owned = |text: &Option<Cow<'_, str>>| {
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

    /// Returns whether it is the one that `new()` makes of this.
    pub fn is(&self, service: &str, pid: u32, container: &Container<'_>) -> bool {
        self.pid == pid && self.service == service && self.container == *container
    }

    /// Appends it as the member `resource` of an object.
    pub fn write(&self, out: &mut Vec<u8>, identity: &Identity) {
        out.extend_from_slice(b"\"resource\":{");
        let mut attributes = Attributes::open(out);
        attributes.add("service.name", Value::Text(&self.service));
        let container = &self.container;
        for (name, value) in [
            ("host.name", identity.host_name.as_deref()),
            ("container.id", container.container_id.as_deref()),
            ("k8s.pod.uid", container.pod_uid.as_deref()),
            ("k8s.pod.name", container.pod.as_deref()),
            ("k8s.namespace.name", container.namespace.as_deref()),
        ] {
            if let Some(value) = value {
                attributes.add(name, Value::Text(value));
            }
        }
        if self.pid != 0 {
            attributes.add("process.pid", Value::Number(self.pid.into()));
        }
        attributes.close();
        out.push(b'}');
    }
}
