// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other ways to get the same times.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use libbpf_rs::Link;
use libbpf_rs::MapCore as _;
use libbpf_rs::Object;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::RingBufferBuilder;
use libbpf_rs::UprobeOpts;

use crate::common::build::kept;
use crate::common::nginx::Config;
use crate::common::nginx::Nginx;
use crate::common::program::kill;
use crate::load::Load;
use crate::row::Row;
use crate::run::Run;
use crate::site::HTTP;

/// An nginx that is not stripped, for tools that need the names of static functions.
const UNSTRIPPED: &str = "source-symbols/objs/nginx";

/// nginx's module for OpenTelemetry, where a package would install it.
const OTEL: &str = "/usr/lib/nginx/modules/ngx_otel_module.so";

/// The place of a probe in a function.
#[derive(PartialEq, Eq)]
enum Place {
    Entry,
    Return,
}

/// The probes of hooks.bpf.c: the program, and nginx's function. Seven of the functions are static.
const HOOKS: [(&str, Place, &str); 10] = [
    ("hook", Place::Entry, "ngx_http_create_request"),
    ("hook", Place::Entry, "ngx_http_process_request"),
    ("hook", Place::Entry, "ngx_http_upstream_connect"),
    ("hook", Place::Entry, "ngx_http_upstream_send_request"),
    ("hook", Place::Return, "ngx_http_upstream_send_request"),
    ("hook", Place::Entry, "ngx_http_upstream_process_header"),
    ("hook", Place::Return, "ngx_http_upstream_process_header"),
    ("hook", Place::Entry, "ngx_http_send_header"),
    ("hook", Place::Return, "ngx_http_output_filter"),
    ("end", Place::Entry, "ngx_http_free_request"),
];

/// One probe that does nothing, at the same function as ngx-bpf's.
const NOTHING: [(&str, Place, &str); 1] = [("nothing", Place::Entry, "ngx_http_free_request")];

/// Measures them beside the tool, on an nginx with the names of its static functions.
pub fn measure(run: &mut Run, upstream: u16) {
    let reason = match Path::new(OTEL).exists() {
        true => "this bench has no configuration for it",
        false => "Debian (bookworm, trixie) has no package of ngx_otel_module.so",
    };
    run.skip("rivals, nginx's otel module", reason);
    let names = ["static", "proxied"].map(|uri| format!("rivals, {uri}"));
    let is_wanted = |name: &String| {
        NAMES
            .iter()
            .any(|row| run.wants(&format!("{name}: {row}"), false))
    };
    if !names.iter().any(is_wanted) {
        return;
    }
    let Some(binary) = kept(UNSTRIPPED) else {
        return run.skip("rivals", "make test-nginx has not made the build");
    };
    let nginx = Nginx::start(&Config {
        http: HTTP,
        upstream,
        binary: binary.clone(),
        ..Config::default()
    });
    let output = nginx.prefix().join("bpftrace.out");
    for name in &names {
        let uri = name.replace("rivals, ", "/");
        let load = || Load::http1(nginx.port, &uri);
        let [ngx_bpf, ten, nothing, bpftrace, log] = NAMES.map(|row| format!("{name}: {row}"));
        run.measure(&Row::tool(&ngx_bpf, &nginx, load(), &[]));
        run.measure(&Row::other(&ten, &nginx, load(), || Hooks::ten(&binary)));
        run.measure(&Row::other(&nothing, &nginx, load(), || {
            Hooks::nothing(&binary)
        }));
        run.measure(&Row::other(&bpftrace, &nginx, load(), || {
            Bpftrace::attach(&binary, &output)
        }));
        let logged = Load::http1(nginx.port, &format!("/logged{uri}"));
        let row = Row::other(&log, &nginx, load(), || ());
        run.measure(&row.with_load(logged));
    }
}

/// The rows.
const NAMES: [&str; 5] = [
    "ngx-bpf",
    "ten hooks",
    "one empty uprobe",
    "bpftrace",
    "access_log, JSON",
];

/// Attached probes, and a reader of their records.
pub struct Hooks {
    links: Vec<Link>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    _object: Object,
}

impl Hooks {
    /// Attaches the ten probes.
    pub fn ten(nginx: &Path) -> Self {
        Self::attach(nginx, &HOOKS)
    }

    /// Attaches a probe that does nothing.
    pub fn nothing(nginx: &Path) -> Self {
        Self::attach(nginx, &NOTHING)
    }

    fn attach(nginx: &Path, hooks: &[(&str, Place, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("hooks.o");
        let status = Command::new("clang")
            .args(["-target", "bpf", "-O2", "-g", "-D__TARGET_ARCH_x86"])
            .args(["-isystem", "vmlinux", "-isystem"])
            .arg(headers(folder.path()))
            .args(["-c", "benches/cost/hooks.bpf.c", "-o"])
            .arg(&object)
            .status();
        assert!(status.unwrap().success());
        let object = ObjectBuilder::default().open_file(&object).unwrap();
        let object = object.load().unwrap();
        let links = hooks
            .iter()
            .enumerate()
            .map(|(n, (program, place, function))| {
                let opts = UprobeOpts {
                    cookie: n as u64,
                    retprobe: *place == Place::Return,
                    func_name: Some((*function).to_owned()),
                    ..Default::default()
                };
                let program = object.progs_mut().find(|found| found.name() == *program);
                let program = program.unwrap();
                program.attach_uprobe_with_opts(-1, nginx, 0, opts).unwrap()
            });
        let links = links.collect();
        let events = object.maps().find(|map| map.name() == "events").unwrap();
        let events = libbpf_rs::MapHandle::try_from(&events).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let mut ring = RingBufferBuilder::new();
            ring.add(&events, |_| 0).unwrap();
            let ring = ring.build().unwrap();
            while !asked.load(Ordering::Relaxed) {
                let _ = ring.poll(Duration::from_millis(50));
            }
        });
        Self {
            links,
            stop,
            reader: Some(reader),
            _object: object,
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.links.clear();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

/// Writes libbpf's headers, which the crate contains for skeletons, and returns their folder.
fn headers(folder: &Path) -> std::path::PathBuf {
    let bpf = folder.join("include/bpf");
    fs::create_dir_all(&bpf).unwrap();
    for (name, content) in libbpf_rs::libbpf_sys::API_HEADERS {
        fs::write(bpf.join(name), content).unwrap();
    }
    folder.join("include")
}

/// A bpftrace script for the same phases, with one line per request.
pub struct Bpftrace(Child);

impl Bpftrace {
    pub fn attach(nginx: &Path, output: &Path) -> Self {
        let nginx = nginx.display();
        let mut script = String::new();
        for (n, function) in [
            "ngx_http_create_request",
            "ngx_http_process_request",
            "ngx_http_upstream_connect",
            "ngx_http_upstream_send_request",
            "ngx_http_upstream_process_header",
            "ngx_http_send_header",
        ]
        .iter()
        .enumerate()
        {
            script += &format!("uprobe:{nginx}:{function} {{ @t{n}[tid] = nsecs; }}\n");
        }
        script += &format!(
            "uprobe:{nginx}:ngx_http_free_request {{ printf(\"%d %d %d %d %d %d %d\\n\", \
             @t0[tid], @t1[tid], @t2[tid], @t3[tid], @t4[tid], @t5[tid], nsecs); }}\n\
             BEGIN {{ printf(\"ready\\n\"); }}\n"
        );
        let file = fs::File::create(output).unwrap();
        let mut child = Command::new("bpftrace")
            .args(["-B", "line", "-e", &script])
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("bpftrace is installed by make bench");
        while !fs::read_to_string(output).unwrap().contains("ready") {
            assert!(child.try_wait().unwrap().is_none(), "bpftrace has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        kill("INT", self.0.id());
        let _ = self.0.wait();
    }
}
