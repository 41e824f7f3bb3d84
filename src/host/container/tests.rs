// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of what is read of a container: every form of a cgroup's path, and hostile text.

use proptest::prelude::*;

use super::Container;
use super::is_name;

/// An id, and another one.
const ID: &str = "7d3a56a1c0ffee00d15ea5e0ba5eba11facade01234567890abcdef012345678";
const OUTER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The uid of a pod.
const UID: &str = "3b1d7a80-9f2c-4c1e-8a55-0d9e6f7a1b2c";

/// The hash that a static pod has instead.
const HASH: &str = "5a1b2c3d4e5f60718293a4b5c6d7e8f9";

/// Returns the id and the uid that a file names, in which ID, OUTER, UID and U_I_D stand for them.
fn parsed(text: &str) -> (Option<String>, Option<String>) {
    let text = text
        .replace("U_I_D", &UID.replace('-', "_"))
        .replace("OUTER", OUTER)
        .replace("UID", UID)
        .replace("HASH", HASH)
        .replace("ID", ID);
    let container = Container::of_cgroup(&text).unwrap_or_default();
    (container.id, container.pod_uid)
}

/// Every form of a path, and whether it names a container and a pod.
const FORMS: [(&str, bool, bool); 27] = [
    ("0::/system.slice/docker-ID.scope", true, false),
    ("0::/docker/ID", true, false),
    ("0::/machine.slice/libpod-ID.scope", true, false),
    ("0::/machine.slice/libpod-ID.scope/container", true, false),
    ("0::/libpod_parent/libpod-ID", true, false),
    (
        "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
        true,
        false,
    ),
    ("0::/k8s.io/ID", true, false),
    ("0::/system.slice/nerdctl-ID.scope", true, false),
    ("0::/kubepods/burstable/podUID/ID", true, true),
    ("0::/kubepods/podUID/ID", true, true),
    ("0::/kubepods/besteffort/podUID/crio-ID", true, true),
    (
        "0::/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-ID.scope",
        true,
        true,
    ),
    (
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/crio-ID.scope",
        true,
        true,
    ),
    (
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice/docker-ID.scope",
        true,
        true,
    ),
    (
        "0::/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
        true,
        true,
    ),
    (
        "0::/docker/OUTER/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
        true,
        true,
    ),
    ("0::/kubepods/podUID/OUTER/docker/ID", true, true),
    (
        "0::/kubepods/podUID/ID/system.slice/nginx.service",
        true,
        true,
    ),
    ("0::/../ID", true, false),
    ("0::/../cri-containerd-ID.scope", true, false),
    ("0::/../../podUID/ID", true, true),
    ("0::/docker/ID (deleted)", true, false),
    ("0::/kubepods/burstable/podUID", false, true),
    ("0::/docker/OUTER/kubelet/kubepods/podUID", false, true),
    (
        "12:pids:/docker/ID\n3:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n",
        true,
        false,
    ),
    (
        "9:memory:/kubepods/burstable/podUID/ID\n0::/system.slice/containerd.service\n",
        true,
        true,
    ),
    (
        "2:freezer:/\n1:name=systemd:/kubepods/podUID/ID\n",
        true,
        true,
    ),
];

/// Check every form of a path, of cgroup v2 and v1, with the id and the pod that it names.
#[test]
fn forms() {
    for (text, has_id, has_pod) in FORMS {
        let (id, uid) = parsed(text);
        assert_eq!(id.as_deref(), has_id.then_some(ID), "{text}");
        assert_eq!(uid.as_deref(), has_pod.then_some(UID), "{text}");
    }
    let (_, uid) = parsed("0::/kubepods.slice/kubepods-burstable-podHASH.slice/crio-ID.scope");
    assert_eq!(uid.as_deref(), Some(HASH));
}

/// Check paths of processes that are in no container, or in one that has no such id.
#[test]
fn none() {
    for text in [
        "",
        "0::/",
        "0::/system.slice/nginx.service",
        "0::/user.slice/user-1000.slice/session-1.scope",
        "0::/init.scope",
        "0::/..",
        "0::/lxc.payload.web",
        "1:name=systemd:/lxc/web",
        "0::/machine.slice/machine-web.scope",
        "0::/crio-conmon-ID.scope",
        "0::/machine.slice/libpod-conmon-ID.scope",
        "0::/docker/7d3a56a1c0ff",
        "0::/docker/IDf",
        "0::/docker/ID.service",
        "0::/docker-ID.scope.d",
        "0::/podman-3b1d7a80",
        "0::/kubepods/pod3b1d7a80-9f2c",
        "0::/kubepods/podxyz",
        "nonsense",
        "docker/ID",
        "0:docker/ID",
    ] {
        assert_eq!(parsed(text), (None, None), "{text}");
    }
    let upper = format!("0::/docker/{}", ID.to_uppercase());
    assert_eq!(parsed(&upper), (None, None));
}

/// Check that nothing is chosen when controllers are in different containers.
#[test]
fn disagreement() {
    assert_eq!(
        parsed("2:cpu:/docker/ID\n1:pids:/docker/OUTER\n"),
        (None, None)
    );
    let (id, uid) = parsed("2:cpu:/podUID/ID\n1:pids:/podUID/OUTER\n");
    assert_eq!((id, uid.as_deref()), (None, Some(UID)));
}

/// Returns the names that files with these contents give: hostname, hosts and namespace.
fn names(files: [Option<&[u8]>; 3], pod_uid: Option<&str>) -> (Option<String>, Option<String>) {
    let mut container = Container {
        pod_uid: pod_uid.map(str::to_owned),
        ..Container::default()
    };
    container.add_names(|path, max| {
        let paths = [super::HOSTNAME, super::HOSTS, super::NAMESPACE];
        let at = paths.iter().position(|known| *known == path).unwrap();
        Some(files[at]?.to_vec()).filter(|file| file.len() <= max)
    });
    (container.pod, container.namespace)
}

/// Check the names of pods, with and without a token, on the node's network, and outside of
/// Kubernetes.
#[test]
fn names_of_pods() {
    let some = |text: &str| Some(text.to_owned());
    let web: Option<&[u8]> = Some(b"web-0\n");
    let shop: Option<&[u8]> = Some(b"shop");
    let hosts: Option<&[u8]> = Some(b"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n");
    let node: Option<&[u8]> = Some(b"# Kubernetes-managed hosts file (host network).\n");
    assert_eq!(
        names([web, hosts, shop], Some(UID)),
        (some("web-0"), some("shop"))
    );
    assert_eq!(names([web, None, None], Some(UID)), (some("web-0"), None));
    assert_eq!(
        names([web, None, shop], None),
        (some("web-0"), some("shop"))
    );
    assert_eq!(names([web, node, shop], Some(UID)), (None, some("shop")));
    assert_eq!(names([web, None, None], None), (None, None));
    let long = format!("{}\n", "x".repeat(63));
    assert_eq!(
        names([Some(long.as_bytes()), None, None], Some(UID)),
        (None, None)
    );
}

/// Check that a name of another form than Kubernetes allows is left out.
#[test]
fn hostile_names() {
    for name in [
        &b""[..],
        b"\n",
        b"a b",
        b"A",
        b"a\x1b[2J",
        b"\xff",
        b"-a",
        b"a-",
        b"a..b",
        b".a",
        b"a/b",
        "\u{202e}a".as_bytes(),
        b"a\nb",
        b"a\0",
        &[b'a'; 600],
    ] {
        let found = names([Some(name), None, Some(name)], Some(UID));
        assert_eq!(found, (None, None), "{name:?}");
    }
    assert_eq!(names([None, None, Some(b"a.b")], Some(UID)).1, None);
}

proptest! {
    /// Check that any text gives an id and a uid of their exact form, or none.
    #[test]
    fn any_cgroup(text in "([0-9]:[a-z]{0,3}:)?(/(pod|docker-|crio-|kubepods-pod)?[0-9a-f_-]{0,66}(.scope|.slice)?|.{0,20}){0,6}") {
        let container = Container::of_cgroup(&text).unwrap_or_default();
        if let Some(id) = container.id {
            prop_assert!(id.len() == 64 && id.bytes().all(super::is_digit));
            prop_assert!(text.contains(&id));
        }
        if let Some(uid) = container.pod_uid {
            prop_assert!(super::is_uid(&uid));
        }
    }

    /// Check that any bytes of a file give a name that Kubernetes allows, or none.
    #[test]
    fn any_name(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let (pod, namespace) = names([Some(&bytes), Some(&bytes), Some(&bytes)], Some(UID));
        for name in [pod, namespace].into_iter().flatten() {
            prop_assert!(is_name(&name) && name.len() <= 63);
        }
    }
}
