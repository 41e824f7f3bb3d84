// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that name a container and its pod, and the options that select by them, on nginx in
//! cgroups and namespaces that the test makes as a runtime and the kubelet do.

use std::fs;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tempfile::TempDir;

use crate::suite::common::build::binary;
use crate::suite::common::build::is_script;
use crate::suite::common::cgroup::Cgroup;
use crate::suite::common::cgroup::HIERARCHIES;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::write_program;
use crate::suite::common::record::Record;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;

/// Writes the files of a pod as the runtime and the kubelet do: a hostname, and a namespace behind links.
const KUBELET: &str = "echo POD > FOLDER/hostname; mount --bind FOLDER/hostname /mnt/etc/hostname
    mount -t tmpfs none /mnt/run; mkdir -p TOKEN/..data; printf shop > TOKEN/..data/namespace
    ln -s ..data/namespace TOKEN/namespace";

/// The folder of the token.
const TOKEN: &str = "/mnt/run/secrets/kubernetes.io/serviceaccount";

/// The number of requests on one connection. nginx closes it after 1000.
const REQUESTS: usize = 900;

/// An nginx in a pod.
struct Pod {
    nginx: Nginx,
    id: String,
    uid: String,
    name: String,
    /// The folder with the hostname.
    folder: TempDir,
    _cgroup: Cgroup,
}

impl Pod {
    /// Starts it, with files that a script makes below `/mnt`, its root. `None` without a cgroup.
    fn start(hierarchy: &str, script: &str) -> Option<Self> {
        Self::named("web", hierarchy, script)
    }

    /// Starts it, with a name that begins like this.
    fn named(name: &str, hierarchy: &str, script: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let id = format!("{process:08x}{number:08x}{:048x}", 7);
        let uid = format!("{process:08x}-{number:04x}-4c1e-8a55-0d9e6f7a1b2c");
        let name = format!("{name}-{process}-{number}");
        let group = format!("kubepods-ngx-bpf-pod{}.slice", uid.replace('-', "_"));
        let cgroup = Cgroup::make(hierarchy, &format!("{group}/cri-containerd-{id}.scope"))?;
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let script = script
            .replace("TOKEN", TOKEN)
            .replace("FOLDER", folder.path().to_str().unwrap())
            .replace("POD", &name);
        let text = format!(
            "#!/bin/sh\necho $$ > {}/cgroup.procs || exit 1\n\
             exec unshare --mount --pid --fork --mount-proc --kill-child \
             sh -ec 'mount --rbind / /mnt\n{script}\nexec chroot /mnt {} \"$@\"' sh \"$@\"\n",
            cgroup.folder().display(),
            binary().display()
        );
        let file = folder.path().join("script");
        write_program(&file, text.as_bytes());
        let nginx = Nginx::start(&Config {
            binary: file,
            namespace: true,
            ..Config::default()
        });
        Some(Self {
            nginx,
            id,
            uid,
            name,
            folder,
            _cgroup: cgroup,
        })
    }

    /// Starts one in the first hierarchy that lets it. Prints SKIP and returns `None` if none does.
    fn first(script: &str) -> Option<Self> {
        if is_left_out() {
            return None;
        }
        let mut hierarchies = HIERARCHIES.into_iter();
        let pod = hierarchies.find_map(|hierarchy| Self::start(hierarchy, script));
        if pod.is_none() {
            println!("SKIP this kernel: no cgroup can be made in {HIERARCHIES:?}");
        }
        pod
    }

    /// Sends requests on connections of their own, and waits until they are logged.
    fn requests(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(Client::connect(self.nginx.port).get("/").status, 200);
        }
    }

    /// Returns the keys that its records have.
    fn keys(&self) -> [Option<&str>; 4] {
        [&*self.id, &*self.uid, &*self.name, "shop"].map(Some)
    }
}

/// Returns whether nginx can't be in a container here, and says why: a script that runs it in a root folder of
/// its own would leave the container's.
fn is_left_out() -> bool {
    let is_script = is_script();
    if is_script {
        println!("SKIP: the binary is run by a script, which changes its root folder");
    }
    is_script
}

/// Returns the keys of a record.
fn keys(record: &Record) -> [Option<&str>; 4] {
    [
        &record.container.container_id,
        &record.container.pod_uid,
        &record.container.pod,
        &record.container.namespace,
    ]
    .map(|key| key.as_deref())
}

/// Check the keys in each hierarchy of cgroups, also of the worker that a reload starts and of one
/// that is traced alone, and that an nginx in no container has none of them.
#[test]
fn names() {
    if is_left_out() {
        return;
    }
    for hierarchy in HIERARCHIES {
        let Some(pod) = Pod::start(hierarchy, KUBELET) else {
            println!("SKIP this kernel: no cgroup can be made in {hierarchy}");
            continue;
        };
        let plain = Nginx::simple();
        let pids = [pod.nginx.pid().to_string(), plain.pid().to_string()];
        let tool = Tool::start(&["--json", "--pid", &pids[0], "--pid", &pids[1]], 2);
        let alone = Tool::trace(pod.nginx.workers()[0]);
        pod.requests(3);
        assert_eq!(Client::connect(plain.port).get("/").status, 200);
        pod.nginx.wait_logged(3);
        let old = pod.nginx.workers()[0];
        pod.nginx.signal("HUP");
        pod.nginx.wait_for_worker();
        let ended = alone.wait();
        ended.assert_clean();
        assert_eq!(ended.records().len(), 3);
        assert!(ended.records().iter().all(|r| keys(r) == pod.keys()));
        pod.requests(3);
        pod.nginx.wait_logged(6);
        plain.quit();
        kill("INT", tool.pid());
        let ended = tool.wait();
        ended.assert_clean();
        let records = ended.records();
        let (of_pod, of_plain): (Vec<_>, Vec<_>) =
            records.iter().partition(|r| keys(r) != [None; 4]);
        assert_eq!((of_pod.len(), of_plain.len()), (6, 1), "{records:?}");
        assert!(of_pod.iter().all(|r| keys(r) == pod.keys()), "{of_pod:?}");
        assert!(of_pod.iter().any(|r| r.pid != old) && of_pod.iter().any(|r| r.pid == old));
    }
}

/// Returns the number of reads that a process has done, by any of its threads.
fn reads(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let count = io.lines().find_map(|line| line.strip_prefix("syscr: "));
    count.unwrap().parse().unwrap()
}

/// Check that the names are read once for a master, and that a request costs no read: its records have
/// the name that it had, also those of the worker that a reload starts, and the number of reads of the
/// tool does not grow with the requests. Another tool, which starts later, reads the new name.
#[test]
fn once() {
    let Some(pod) = Pod::first(KUBELET) else {
        return;
    };
    let tool = Tool::trace(pod.nginx.pid());
    pod.requests(1);
    pod.nginx.wait_logged(1);
    fs::write(pod.folder.path().join("hostname"), "renamed\n").unwrap();
    pod.nginx.signal("HUP");
    /* The old worker would take a connection and then close it. */
    pod.nginx.wait_for_log("exited with code 0");
    let before = reads(tool.pid());
    let mut client = Client::connect(pod.nginx.port);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").status, 200);
    }
    let count = reads(tool.pid()) - before;
    assert!(count < REQUESTS as u64 / 2, "{count} reads");
    let other = Tool::trace(pod.nginx.pid());
    pod.requests(1);
    pod.nginx.wait_logged(REQUESTS + 2);
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.records().len(), REQUESTS + 2);
    assert!(ended.records().iter().all(|r| keys(r) == pod.keys()));
    let ended = other.stop();
    assert_eq!(ended.records().len(), 1);
    let pods = ended.records();
    assert_eq!(pods[0].container.pod.as_deref(), Some("renamed"));
}

/// Check OpenTelemetry's names of the keys.
#[test]
fn otel() {
    let Some(pod) = Pod::first(KUBELET) else {
        return;
    };
    let tool = Tool::start(
        &["--format", "otel", "--pid", &pod.nginx.pid().to_string()],
        1,
    );
    pod.requests(1);
    pod.nginx.wait_logged(1);
    let ended = tool.stop();
    ended.assert_clean();
    let line: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let names = [
        "container.id",
        "k8s.pod.uid",
        "k8s.pod.name",
        "k8s.namespace.name",
    ];
    assert_eq!(names.map(|name| line[name].as_str()), pod.keys());
}

/// Check that `--container` and `--pod` select what is traced among all nginx of the machine: those
/// that run, with `--wait` those that start later, and none of the others.
#[test]
fn selection() {
    let (Some(one), Some(two)) = (Pod::first(KUBELET), Pod::first(KUBELET)) else {
        return;
    };
    let spaced = format!("shop/{}", two.name);
    let turns = [
        (["--container", &one.id[..16]], &one, &two),
        (["--container", &two.id], &two, &one),
        (["--pod", &one.name], &one, &two),
        (["--pod", &spaced], &two, &one),
    ];
    for (turn, (args, chosen, other)) in (1..).zip(turns) {
        let tool = Tool::start(&["--json", args[0], args[1]], 1);
        other.requests(2);
        chosen.requests(2);
        for pod in [chosen, other] {
            pod.nginx.wait_logged(2 * turn);
        }
        let ended = tool.stop();
        ended.assert_clean();
        assert_eq!(ended.summary().seen, 2);
        assert_eq!(ended.records().len(), 2, "{args:?}");
        assert!(
            ended.records().iter().all(|r| keys(r) == chosen.keys()),
            "{args:?}"
        );
    }
}

/// Check that `--wait` traces a pod that starts later, and nothing else, and that names that no
/// nginx has end the tool with an error.
#[test]
fn later() {
    let Some(first) = Pod::first(KUBELET) else {
        return;
    };
    /* The number at the end of the name is not known beforehand: other tests start pods, too. */
    let names = (0..100).map(|number| format!("later-{}-{number}", std::process::id()));
    let names: Vec<_> = names.flat_map(|name| ["--pod".to_owned(), name]).collect();
    let mut tool = Tool::spawn(Command::new(PROGRAM).args(["--json", "--wait"]).args(names));
    tool.read_stdout();
    tool.wait_for_message("waiting for nginx to start");
    let mut hierarchies = HIERARCHIES.into_iter();
    let second = hierarchies.find_map(|hierarchy| Pod::named("later", hierarchy, KUBELET));
    let second = second.unwrap();
    tool.wait_for_message(&format!("pid {}, ", second.nginx.pid()));
    first.requests(2);
    second.requests(2);
    second.nginx.wait_logged(2);
    let ended = tool.stop();
    ended.assert_clean();
    let records = ended.records();
    assert!(
        records
            .iter()
            .all(|r| r.container.pod.as_deref() != Some(&first.name))
    );
    let of_second = records.iter().filter(|r| keys(r) == second.keys());
    assert_eq!(of_second.count(), 2);

    let pid = first.nginx.pid().to_string();
    for args in [
        &["--container", "ffffffffffffffff"][..],
        &["--pod", "no-such-pod"],
        &["--pod", "shop/no-such-pod", "--pid", &pid],
    ] {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("in the container or pod that was named"),
            "{text}"
        );
    }
}

/// Check files of a hostile container: a FIFO, a device, links out of its root, control bytes, a
/// file without an end, and a folder. Its nginx is traced, without the names.
#[test]
fn hostile() {
    for hostname in [
        "test -p FOLDER/x || mkfifo FOLDER/x; mount --bind FOLDER/x /mnt/etc/hostname",
        "mount --bind /dev/zero /mnt/etc/hostname",
        "mount --bind /proc/version /mnt/etc/hostname",
        "printf \"web\\033[2J\" > FOLDER/x; mount --bind FOLDER/x /mnt/etc/hostname",
        "truncate -s 1T FOLDER/x; mount --bind FOLDER/x /mnt/etc/hostname",
        "mount -t tmpfs none /mnt/mnt; cp -a /etc/. /mnt/mnt; rm -f /mnt/mnt/hostname
         ln -s /proc/1/root/etc/hostname /mnt/mnt/hostname; mount --move /mnt/mnt /mnt/etc",
    ] {
        let script = format!(
            "{hostname}\nmount -t tmpfs none /mnt/run; mkdir -p TOKEN; mkfifo TOKEN/namespace"
        );
        let Some(pod) = Pod::first(&script) else {
            return;
        };
        let tool = Tool::trace(pod.nginx.pid());
        pod.requests(2);
        pod.nginx.wait_logged(2);
        let ended = tool.stop();
        ended.assert_clean();
        let expected = [Some(&*pod.id), Some(&*pod.uid), None, None];
        assert_eq!(ended.records().len(), 2);
        assert!(
            ended.records().iter().all(|r| keys(r) == expected),
            "{hostname}"
        );
    }
}
