// SPDX-License-Identifier: MIT OR Apache-2.0
//! The container that a process runs in: its id and its pod's from the path of its cgroup, which
//! the container's runtime has made, and the names that the container's own files give. All of it
//! may be hostile text: whatever is not of the exact form that runtimes and Kubernetes write is
//! left out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

use crate::host::process_root::ProcessRoot;

/// The most bytes of `/proc/PID/cgroup`: a path of the kernel has at most 4096, and cgroup v1 has a
/// line for each controller.
const CGROUP_BYTES_MAX: u64 = 1 << 16;

/// The digits of a container's id.
const ID_LEN: usize = 64;

/// The prefixes that runtimes give the cgroup of a container, before its id. Those of other
/// processes (`crio-conmon-`) are not here.
const RUNTIMES: [&str; 6] = [
    "containerd",
    "cri-containerd",
    "crio",
    "docker",
    "libpod",
    "nerdctl",
];

/// The most bytes of a label of DNS, which the names of pods and namespaces consist of.
const LABEL_MAX: usize = 63;

/// The kubelet cuts a longer name of a pod to a hostname of this length, or of one byte less.
const HOSTNAME_CUT: usize = 62;

/// The runtime's file with the hostname that the kubelet chose, which is the pod's name unless the pod
/// states another one (`spec.hostname`, `setHostnameAsFQDN`).
const HOSTNAME: &str = "etc/hostname";

/// The file with the namespace, which is there when the pod has a token of its service account.
const NAMESPACE: &str = "var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The file that the kubelet writes, and how it begins when the pod uses the node's network: the
/// hostname is then the node's.
const HOSTS: &str = "etc/hosts";
const HOST_NETWORK: &[u8] = b"# Kubernetes-managed hosts file (host network).";

/// The most bytes of a file with a name, and of a file with hosts.
const NAME_BYTES_MAX: usize = 512;
const HOSTS_BYTES_MAX: usize = 1 << 16;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The id, of 64 hexadecimal digits.
    pub id: Option<String>,
    /// The uid of its pod.
    pub pod_uid: Option<String>,
    /// The name of its pod.
    pub pod: Option<String>,
    /// The namespace of its pod.
    pub namespace: Option<String>,
}

/// The name of a pod, with its namespace if that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    pub namespace: Option<String>,
    pub name: String,
}

impl PodName {
    /// Returns whether a container states that it is in this pod.
    pub fn names(&self, container: &Container) -> bool {
        container.pod.as_ref() == Some(&self.name)
            && (self.namespace.is_none() || container.namespace == self.namespace)
    }
}

impl Container {
    /// Reads what is known of the container of a process. `None` when the process is in none, or
    /// has ended. Only the lookout thread does this, though no file is opened that may block.
    pub fn read(pid: u32) -> Option<Self> {
        let mut text = Vec::new();
        let file = File::open(format!("/proc/{pid}/cgroup")).ok()?;
        file.take(CGROUP_BYTES_MAX).read_to_end(&mut text).ok()?;
        let mut container = Self::of_cgroup(&String::from_utf8_lossy(&text))?;
        if let Some(root) = ProcessRoot::hold(pid) {
            let read = |path: &str, max: usize| root.read(path, max);
            container.add_names(read);
        }
        Some(container)
    }

    /// Parses a file of the form of `/proc/PID/cgroup`. What its lines disagree about is left out.
    fn of_cgroup(text: &str) -> Option<Self> {
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let (ids, uids): (Vec<_>, Vec<_>) = paths.map(of_path).unzip();
        let id = the_only(ids);
        let pod_uid = the_only(uids);
        (id.is_some() || pod_uid.is_some()).then(|| Self {
            id: id.map(str::to_owned),
            pod_uid,
            ..Self::default()
        })
    }

    /// Adds the names of the pod and its namespace. Outside of Kubernetes a container has neither.
    fn add_names(&mut self, read: impl Fn(&str, usize) -> Option<Vec<u8>>) {
        let name = |path: &str| String::from_utf8(read(path, NAME_BYTES_MAX)?).ok();
        let namespace = name(NAMESPACE);
        self.namespace = namespace
            .map(|text| text.trim_end().to_owned())
            .filter(|text| !text.contains('.') && is_name(text));
        if self.pod_uid.is_none() && self.namespace.is_none() {
            return;
        }
        let hosts = read(HOSTS, HOSTS_BYTES_MAX);
        if hosts.is_some_and(|hosts| hosts.starts_with(HOST_NETWORK)) {
            return;
        }
        self.pod = name(HOSTNAME)
            .map(|text| text.trim_end().to_owned())
            .filter(|text| text.len() < HOSTNAME_CUT && is_name(text));
    }
}

/// Returns the one value that is there, if there is exactly one.
fn the_only<T: Ord>(values: Vec<Option<T>>) -> Option<T> {
    let mut values: BTreeSet<T> = values.into_iter().flatten().collect();
    let first = values.pop_first();
    first.filter(|_| values.is_empty())
}

/// Returns the id of the innermost container that the path of a cgroup names, and the uid of the
/// innermost pod.
fn of_path(path: &str) -> (Option<&str>, Option<String>) {
    let (mut id, mut pod_uid) = (None, None);
    /* The kernel adds this to the path of a cgroup that was removed. */
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    for component in path.split('/') {
        if let Some(uid) = uid_of(component) {
            /* A container outside of the pod is the node that the pod runs on. */
            (id, pod_uid) = (None, Some(uid));
        }
        id = id_of(component).or(id);
    }
    (id, pod_uid)
}

/// Returns the id in `ID`, `RUNTIME-ID`, with or without `.scope`, and in `SLICE:RUNTIME:ID`.
fn id_of(component: &str) -> Option<&str> {
    let name = component.rsplit(':').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = match name.rsplit_once('-') {
        Some((runtime, id)) if RUNTIMES.contains(&runtime) => id,
        Some(_) => return None,
        None => name,
    };
    (id.len() == ID_LEN && id.bytes().all(is_digit)).then_some(id)
}

/// Returns the uid in `podUID` and in `kubepods-burstable-podUID.slice`, where `_` stands for `-`.
fn uid_of(component: &str) -> Option<String> {
    let name = component.split(':').next()?;
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// Returns whether this is a UUID, or the hash that a static pod has instead.
fn is_uid(uid: &str) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    match uid.len() {
        32 => uid.bytes().all(is_digit),
        36 => uid.bytes().enumerate().all(|(at, byte)| {
            let is_dash = DASHES.contains(&at);
            if is_dash {
                byte == b'-'
            } else {
                is_digit(byte)
            }
        }),
        _ => false,
    }
}

/// Returns whether this is a hexadecimal digit as runtimes write it.
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Returns whether Kubernetes allows this name (RFC 1123, in lower case).
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-');
        label.bytes().all(is_inner)
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= LABEL_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests;
