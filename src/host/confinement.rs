// SPDX-License-Identifier: MIT OR Apache-2.0
//! What confines this process besides capabilities: an AppArmor profile, a seccomp filter, the
//! kernel's lockdown, another security module, and a pid namespace. It is read only after the
//! kernel has refused something, or after no nginx was found, to say what to do.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::host::system_calls;

/// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`: the inode of the first pid namespace.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The most bytes of a file that are read. Profiles and labels are shorter.
const BYTES_MAX: u64 = 4096;

/// The files that describe the confinement, read when it is created.
#[derive(Debug, Default)]
pub struct Confinement {
    /// The label of the security module that labels processes: AppArmor's profile or SELinux's
    /// context. Empty when there is none.
    label: String,
    /// The security modules of the kernel, with commas. Empty in most containers, which do not
    /// see securityfs.
    modules: String,
    /// The levels of lockdown; the one in brackets is in force.
    lockdown: String,
    /// True when a seccomp filter is in force that is not this process's own.
    is_filtered: bool,
    /// The pid namespace, as its link reads. Empty when it can't be read.
    pid_namespace: String,
}

impl Confinement {
    /// Reads the confinement of this process.
    pub fn read() -> Self {
        Self::below(Path::new("/"), system_calls::own_filters())
    }

    /// Reads it from files below this folder, for a process that has this number of filters of its own.
    fn below(root: &Path, own_filters: u32) -> Self {
        let text = |path: &str| read_text(&root.join(path));
        /* AppArmor's own file; the older one belongs to the first of all modules that label. */
        let own = text("proc/self/attr/apparmor/current");
        let label = if own.is_empty() {
            text("proc/self/attr/current")
        } else {
            own
        };
        let status = text("proc/self/status");
        let mut lines = status.lines();
        /* Since Linux 5.9. */
        let filters = lines.find_map(|line| line.strip_prefix("Seccomp_filters:"));
        let filters = filters.and_then(|count| count.trim().parse::<u32>().ok());
        let namespace = std::fs::read_link(root.join("proc/self/ns/pid"));
        Self {
            label,
            modules: text("sys/kernel/security/lsm"),
            lockdown: text("sys/kernel/security/lockdown"),
            is_filtered: filters.is_some_and(|count| count > own_filters),
            pid_namespace: namespace
                .map(|link| link.display().to_string())
                .unwrap_or_default(),
        }
    }

    /// Returns the AppArmor profile that confines this process. `None` when it has none, or when
    /// the profile only complains. A label of SELinux has colons and no mode.
    fn profile(&self) -> Option<&str> {
        match self.label.rsplit_once(" (") {
            Some((profile, "enforce)" | "kill)" | "user)" | "mixed)")) => Some(profile),
            _ => None,
        }
    }

    /// Returns the context that SELinux gives this process. `None` when it is not in use.
    fn context(&self) -> Option<&str> {
        let fields = self.label.split(':').count();
        (fields >= 3 && self.profile().is_none()).then_some(self.label.as_str())
    }

    /// Returns the reason why a capability is not sufficient to open a file of another process,
    /// and what to do.
    pub fn of_processes(&self) -> Option<String> {
        if let Some(profile) = self.profile() {
            return Some(format!(
                "the AppArmor profile {profile:?} of this process forbids it: run without it \
                 (appArmorProfile Unconfined, or --security-opt apparmor=unconfined)"
            ));
        }
        let context = self.context()?;
        Some(format!(
            "SELinux may forbid it to {context:?}: allow it there (spc_t, or --security-opt \
             label=disable)"
        ))
    }

    /// Returns the reason why all capabilities are not sufficient to use BPF, and what to do.
    pub fn of_bpf(&self) -> String {
        let locked = |level| {
            format!(
                "the kernel is locked down ({level}): boot it without lockdown= (Secure Boot sets \
                 it on some distributions)"
            )
        };
        let level = self.lockdown_level();
        if let Some(level) = level.filter(|_| self.is_confidential()) {
            return locked(level);
        }
        if self.is_filtered {
            return "a seccomp filter is in force: let it allow bpf and perf_event_open (Docker 23 \
                    and containerd 1.7 do for these capabilities)"
                .to_owned();
        }
        if let Some(context) = self.context() {
            return format!("SELinux may forbid it to {context:?}: allow its class bpf there");
        }
        if let Some(profile) = self.profile() {
            return format!(
                "the AppArmor profile {profile:?} may forbid it: run without it (appArmorProfile \
                 Unconfined)"
            );
        }
        /* At this level no kernel of kernel.org refuses BPF to read, but those of distributions may. */
        if let Some(level) = level {
            return locked(level);
        }
        if self.modules.split(',').any(|module| module == "bpf") {
            return "a BPF program of a security agent may forbid it (the module bpf of \
                    /sys/kernel/security/lsm): allow ngx-bpf there"
                .to_owned();
        }
        "run as root on the host, without a seccomp filter, and where no lockdown of the kernel \
         forbids it"
            .to_owned()
    }

    /// Returns whether the kernel is locked down so far that BPF may not read its memory.
    pub fn is_confidential(&self) -> bool {
        self.lockdown_level() == Some("confidentiality")
    }

    /// Returns the level of lockdown that is in force. `None` when there is no lockdown.
    fn lockdown_level(&self) -> Option<&str> {
        let (_, rest) = self.lockdown.split_once('[')?;
        let (level, _) = rest.split_once(']')?;
        ["integrity", "confidentiality"]
            .contains(&level)
            .then_some(level)
    }

    /// Returns what to do when no nginx is visible. `None` on the host, where all are.
    pub fn of_visibility(&self) -> Option<&'static str> {
        let is_own =
            self.pid_namespace.starts_with("pid:") && self.pid_namespace != INITIAL_PID_NAMESPACE;
        is_own.then_some(
            "no nginx is running in this pid namespace, which is not the host's: set hostPID: true \
             (or --pid=host), or start it here",
        )
    }
}

/// Reads the beginning of a file of the kernel. Empty when it can't be read.
fn read_text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches(['\0', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::Confinement;

    /// Returns the confinement that these files describe.
    fn with(files: &[(&str, &str)]) -> Confinement {
        with_own(files, 0)
    }

    /// Does the same for a process that has this number of seccomp filters of its own.
    fn with_own(files: &[(&str, &str)], own_filters: u32) -> Confinement {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if text.starts_with("pid:") {
                symlink(text, path).unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
        }
        Confinement::below(folder.path(), own_filters)
    }

    /// Check that an AppArmor profile is named where it is enforced, and nowhere else, wherever
    /// the kernel shows it, and that its name does nothing to a terminal.
    #[test]
    fn apparmor() {
        for path in ["proc/self/attr/current", "proc/self/attr/apparmor/current"] {
            let said = with(&[(path, "cri-containerd.apparmor.d (enforce)\n")]).of_processes();
            let said = said.unwrap();
            assert!(said.contains("\"cri-containerd.apparmor.d\""), "{said}");
            assert!(said.contains("appArmorProfile Unconfined"), "{said}");
            for label in ["unconfined\n", "docker-default (complain)\n", "", "\0"] {
                assert_eq!(with(&[(path, label)]).of_processes(), None, "{label:?}");
            }
        }
        let said = with(&[("proc/self/attr/current", "a\x1b[2J (enforce)")]).of_processes();
        assert!(!said.unwrap().contains('\x1b'));
        assert_eq!(with(&[]).of_processes(), None);
    }

    /// Check that the level of lockdown that is in force is named.
    #[test]
    fn lockdown() {
        let path = "sys/kernel/security/lockdown";
        for (text, level) in [
            ("none [integrity] confidentiality\n", "(integrity)"),
            ("none integrity [confidentiality]\n", "(confidentiality)"),
        ] {
            let said = with(&[(path, text)]).of_bpf();
            assert!(said.contains(level), "{said}");
            let is_confidential = with(&[(path, text)]).is_confidential();
            assert_eq!(is_confidential, level == "(confidentiality)");
        }
        let said = with(&[(path, "[none] integrity confidentiality\n")]).of_bpf();
        assert!(said.starts_with("run as root on the host"), "{said}");
    }

    /// Check that each security module and filter that may refuse BPF is named.
    #[test]
    fn refused_bpf() {
        for (path, text, expected) in [
            (
                "proc/self/attr/current",
                "system_u:system_r:container_t:s0:c1,c2\0",
                "SELinux may forbid it to \"system_u:system_r:container_t:s0:c1,c2\"",
            ),
            (
                "proc/self/attr/current",
                "docker-default (enforce)\n",
                "the AppArmor profile \"docker-default\"",
            ),
            (
                "proc/self/status",
                "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
                "a seccomp filter",
            ),
            (
                "sys/kernel/security/lsm",
                "capability,yama,bpf",
                "a BPF program of a security agent",
            ),
            (
                "proc/self/status",
                "Seccomp:\t0\nSeccomp_filters:\t0\n",
                "run as root on the host",
            ),
        ] {
            let said = with(&[(path, text)]).of_bpf();
            assert!(said.starts_with(expected), "{said}");
        }
    }

    /// Check that the filter that this process has given itself is not taken for one that forbids BPF,
    /// and that one of a sandbox beside it is.
    #[test]
    fn own_filter() {
        for (filters, is_sandboxed) in [(1, false), (2, true)] {
            let status = format!("Seccomp:\t2\nSeccomp_filters:\t{filters}\n");
            let said = with_own(&[("proc/self/status", &status)], 1).of_bpf();
            let names_filter = said.starts_with("a seccomp filter is in force");
            assert_eq!(names_filter, is_sandboxed, "{said}");
        }
    }

    /// Check that a pid namespace that is not the host's is recognized.
    #[test]
    fn host_pid() {
        let path = "proc/self/ns/pid";
        let said = with(&[(path, "pid:[4026532555]")]).of_visibility();
        assert!(said.unwrap().contains("set hostPID: true"));
        assert_eq!(with(&[(path, "pid:[4026531836]")]).of_visibility(), None);
        assert_eq!(with(&[]).of_visibility(), None);
    }
}
