// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that name the container of its nginx.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::limits;

/// The container that nginx runs in, as far as it has a name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Container<'a> {
    /// The id of the container that nginx runs in; of several within each other, the innermost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::CONTAINER_ID_MAX), extend(
        "pattern" = "^[0-9a-f]{64}$",
        "x-unit" = "64 hexadecimal digits",
        "x-source" = "`/proc/PID/cgroup` of the master, once: the path that the runtime gave the \
                      container's cgroup (containerd, CRI-O, Docker, Podman)",
        "x-absent" = "nginx runs in no container, or in one without such an id (LXC, systemd-nspawn); \
                      ngx-bpf sees no part of the path that names it; the lines of cgroup v1 name \
                      several containers; 1,024 more containers had ended before the record was \
                      written, which a message reports",
        "x-otel" = "container.id"
    ))]
    pub container_id: Option<Cow<'a, str>>,
    /// The uid of the pod of Kubernetes that nginx runs in; of a static pod, the hash of its manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::POD_UID_MAX), extend(
        "pattern" = "^[0-9a-f-]{32,36}$",
        "x-source" = "`/proc/PID/cgroup` of the master, once",
        "x-absent" = "nginx runs in no pod; ngx-bpf sees no part of the path that names it",
        "x-otel" = "k8s.pod.uid"
    ))]
    pub pod_uid: Option<Cow<'a, str>>,
    /// The name of the pod, as the container itself states it: the hostname that the kubelet gave it,
    /// which is another where the pod has a `spec.hostname` or `setHostnameAsFQDN`. The container can
    /// write what it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::POD_NAME_MAX), extend(
        "pattern" = "^[0-9a-z.-]+$",
        "x-source" = "`/etc/hostname` in the root folder of the master, once",
        "x-absent" = "nginx runs in no pod, or neither `pod_uid` nor `namespace` shows that it does; the \
                      pod uses the node's network; the file is missing, is no regular file, is on a \
                      file system that may never answer, or has no name that Kubernetes allows; the \
                      name has 62 characters or more, of which a hostname may be a part only",
        "x-otel" = "k8s.pod.name"
    ))]
    pub pod: Option<Cow<'a, str>>,
    /// The namespace of the pod, as the container itself states it. The container can write what it
    /// likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::POD_NAME_MAX), extend(
        "pattern" = "^[0-9a-z-]+$",
        "x-source" = "`/var/run/secrets/kubernetes.io/serviceaccount/namespace` in the root folder of \
                      the master, once",
        "x-absent" = "nginx runs in no container; the pod has no token of its service account; the file \
                      can't be read, as for `pod`",
        "x-otel" = "k8s.namespace.name"
    ))]
    pub namespace: Option<Cow<'a, str>>,
}
