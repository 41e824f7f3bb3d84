// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DaemonSet asks for the rights that the service unit has, and for no others. `make test-image`
//! checks the manifest against the schemas of Kubernetes, and runs the image as it says.

/// The manifest.
const MANIFEST: &str = include_str!("../../packaging/kubernetes/daemonset.yaml");

/// The unit.
const UNIT: &str = include_str!("../../packaging/ngx-bpf.service");

/// Returns the values of a key of the manifest, without comments.
fn values(key: &str) -> Vec<&'static str> {
    let lines = MANIFEST.lines().map(str::trim_start);
    let lines = lines.map(|line| line.strip_prefix("- ").unwrap_or(line));
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.filter(|(name, _)| *name == key);
    fields.map(|(_, value)| value.trim()).collect()
}

/// Check that the capabilities are exactly those of the unit.
#[test]
fn capabilities() {
    let key = "AmbientCapabilities=";
    let unit = UNIT.lines().find_map(|line| line.strip_prefix(key));
    let unit: Vec<String> = unit
        .unwrap()
        .split_whitespace()
        .map(|name| format!("\"{}\"", name.strip_prefix("CAP_").unwrap()))
        .collect();
    assert!(unit.len() >= 3, "{unit:?}");
    assert_eq!(values("add"), [format!("[{}]", unit.join(", "))]);
    assert_eq!(values("drop"), ["[\"ALL\"]"]);
}

/// Check each field that confines the pod, or that tracing needs.
#[test]
fn confinement() {
    for (key, expected) in [
        ("hostPID", &["true"][..]),
        ("hostNetwork", &[]),
        ("hostIPC", &[]),
        ("privileged", &["false"]),
        ("allowPrivilegeEscalation", &["false"]),
        ("readOnlyRootFilesystem", &["true"]),
        ("automountServiceAccountToken", &["false"]),
        /* AppArmor, seccomp, and after the strategy of updates the type of the one volume. */
        (
            "type",
            &["RollingUpdate", "Unconfined", "RuntimeDefault", "Directory"],
        ),
        ("path", &["/sys/kernel/btf"]),
        ("mountPath", &["/sys/kernel/btf"]),
        ("readOnly", &["true"]),
    ] {
        assert_eq!(values(key), expected, "{key}");
    }
    let image = format!("registry.example/ngx-bpf:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(values("image"), [image]);
}
