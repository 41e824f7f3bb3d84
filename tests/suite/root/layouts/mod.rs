// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of layouts: they are checked against the code of nginx, what the check can't decide is accepted and
//! reported, and whoever knows better can say so.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::suite::common::build::binary;
use crate::suite::common::build::build_id;
use crate::suite::common::client::Client;
use crate::suite::common::imitation::check;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::objcopy;
use crate::suite::common::imitation::while_running;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::patched::Change;
use crate::suite::common::patched::patch;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;

mod ways;

/// Returns the layout that an imitation states, with `c->log` at this offset and `log->data` where its code
/// has it.
fn layout_of(file: &Path, log: u32) -> String {
    let output = Command::new(PROGRAM).arg("layout").arg(file).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let mut place = String::new();
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    let lines = lines.map(
        |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [name] => {
                place = name.to_owned();
                line.to_owned()
            }
            ["log", _] if place == "ngx_connection_s" => format!("    log {log}"),
            ["data", _] if place == "ngx_log_s" => "    data 40".to_owned(),
            _ => line.to_owned(),
        },
    );
    lines.map(|line| line + "\n").collect()
}

/// An nginx of the machine that runs as a file of its own, with its layout in a file.
struct Subject {
    nginx: Nginx,
    folder: TempDir,
}

impl Subject {
    /// Starts a copy of the machine's nginx.
    fn whole() -> Self {
        Self::start(&[], None)
    }

    /// Starts a copy with one of its variables renamed, so that nothing in its code shows the member which
    /// that variable reads.
    fn without_variable(variable: &str) -> Self {
        let text = |name: &str| format!("\0{name}\0").into_bytes();
        let renamed = format!("x{}", &variable[1..]);
        Self::start(&[(text(variable), text(&renamed))], Some(variable))
    }

    /// Starts a copy with some bytes changed.
    fn start(changes: &[Change], unlogged: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let copy = folder.path().join("nginx");
        patch(&binary(), &copy, changes);
        let table = include_str!("../../../../crates/nginx-binary/layouts.txt");
        fs::write(folder.path().join("layout"), table).unwrap();
        let nginx = Nginx::start(&Config {
            binary: copy,
            unlogged,
            ..Config::default()
        });
        Self { nginx, folder }
    }

    /// Writes the layout with the file's lines changed.
    fn change(&self, from: &str, to: &str) {
        let file = self.folder.path().join("layout");
        let text = fs::read_to_string(&file).unwrap();
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        fs::write(file, changed).unwrap();
    }

    /// Returns the arguments that name it and its layout.
    fn args(&self) -> [String; 4] {
        let file = self.folder.path().join("layout").display().to_string();
        [
            "--pid".to_owned(),
            self.nginx.pid().to_string(),
            "--layout".to_owned(),
            file,
        ]
    }

    /// Traces a request, and returns what was said about the layout before that.
    fn trace(self, more: &[&str]) -> Vec<String> {
        let args = self.args();
        let args = args.iter().map(String::as_str).chain(more.iter().copied());
        let args: Vec<&str> = ["--json"].into_iter().chain(args).collect();
        let tool = Tool::start(&args, 1);
        assert_eq!(Client::connect(self.nginx.port).get("/").status, 200);
        let logged = self.nginx.quit();
        let mut ended = tool.wait();
        let is_of_layout = |line: &String| line.contains("\"/tmp/");
        let said: Vec<String> = ended
            .stderr
            .extract_if(.., |line| is_of_layout(line))
            .collect();
        ended.assert_clean();
        assert_equal(&ended.records(), &logged);
        said
    }
}

/// A variable of nginx, and the member that nothing else shows.
const VARIABLE: &str = "upstream_header_time";
const UNSHOWN: &str = "ngx_http_upstream_state_t.header_time";
/// A member that no request of these tests depends on.
const MOVED: &str = "ngx_http_upstream_s.cache_status";

/// Check that a member without a witness is taken from the file as it is, and that this is said.
#[test]
fn undecided() {
    let subject = Subject::without_variable(VARIABLE);
    let args = subject.args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = Command::new(PROGRAM).arg("check").args(&args).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = format!("  unchecked  its code does not show: {UNSHOWN}\n");
    assert!(text.contains(&line), "{text}");
    let said = subject.trace(&[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("does not show where 1 of "), "{said:?}");
    assert!(
        said[0].ends_with(&format!("as they are: {UNSHOWN}")),
        "{said:?}"
    );
}

/// Check that a file that the code contradicts is refused, and is used with `--trust-layout`, with a warning
/// that names the members.
#[test]
fn contradicted() {
    let subject = Subject::whole();
    for (right, wrong) in [
        ("cache_status 9", "cache_status 8"),
        ("cache_status 10", "cache_status 11"),
    ] {
        subject.change(right, wrong);
    }
    let args = subject.args();
    let output = Command::new(PROGRAM).args(&args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("does not fit this binary, build id "),
        "{said}"
    );
    assert!(said.contains(&format!("({MOVED} first)")), "{said}");
    assert!(
        said.contains("--trust-layout if you know that this one is right"),
        "{said}"
    );
    let said = subject.trace(&["--trust-layout"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("ngx-bpf: warning: the layout in \"/tmp/"),
        "{said:?}"
    );
    assert!(
        said[0].contains(&format!(" members elsewhere: {MOVED};")),
        "{said:?}"
    );
}

/// Check that `--trust-layout` does not attach to a function whose code can't be probed.
#[test]
fn trust_is_not_blind() {
    let folder = TempDir::new().unwrap();
    let body = "-DBODY=__asm__ volatile(\"push %rax; pop %rax\")";
    compile(folder.path(), &["-O2", "-g", body]);
    let program = folder.path().join("nginx");
    let file = folder.path().join("layout");
    fs::write(&file, layout_of(&program, 96)).unwrap();
    let file = file.display().to_string();
    let report = check(&program, &["--layout", &file, "--trust-layout"]);
    let reason = report["reason"].as_str().unwrap();
    let expected = "a probe in ngx_http_free_request: no code calls it";
    assert!(reason.contains(expected), "{reason}");
}

/// Check that a layout that is installed by the build id of a stripped binary is used, in the folder of
/// packages and in the administrator's, that it is checked as that of `--layout` is, and that it comes after
/// debug information and `--layout`.
#[test]
fn installed() {
    let folder = TempDir::new().unwrap();
    let unknown = ["-DVERSION=1099000", "-DNAME=\"nginx/1.99.0\"", "-g"];
    let program = compile(folder.path(), &unknown);
    objcopy(folder.path(), &["--strip-all", "nginx", "stripped"]);
    let stripped = folder.path().join("stripped");
    let reason = reason(&installed_check(&stripped, &folder, "usr/share", &[]));
    assert!(
        reason.contains("no layout known for nginx 1.99.0"),
        "{reason}"
    );
    for place in ["usr/share", "usr/local/share"] {
        let layouts = folder.path().join(place).join("ngx-bpf/layouts");
        fs::create_dir_all(&layouts).unwrap();
        let file = layouts.join(format!("{}.layout", build_id(&program)));
        let right = layout_of(&program, 80);
        fs::write(&file, &right).unwrap();
        let check = |program: &Path, args: &[&str]| installed_check(program, &folder, place, args);
        let report = check(&stripped, &[]);
        let nginx = &report["nginx"][0];
        assert_eq!(nginx["layout"], "installed", "{report:#}");
        let path = format!("/{place}/ngx-bpf/layouts/{}.layout", build_id(&program));
        assert_eq!(nginx["layout_file"], path);
        let report = check(&program, &[]);
        assert_eq!(report["nginx"][0]["layout"], "dwarf", "{report:#}");
        let stated = folder.path().join("stated").display().to_string();
        fs::write(&stated, &right).unwrap();
        for (text, expected) in wrong_files(&program, &right) {
            fs::write(&file, text).unwrap();
            let refused = self::reason(&check(&stripped, &[]));
            assert!(refused.contains(expected), "{refused}");
            assert!(
                refused.ends_with(&format!("remove \"{path}\", or pass --layout")),
                "{refused}"
            );
            let report = check(&stripped, &["--layout", &stated]);
            assert_eq!(report["nginx"][0]["layout"], "file", "{report:#}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let report = check(&stripped, &[]);
        assert!(
            self::reason(&report).contains("no layout known"),
            "{report:#}"
        );
    }
}

/// Returns files that can't be used for a program, each with what is said of it. `right` is the right one.
fn wrong_files(program: &Path, right: &str) -> [(String, &'static str); 5] {
    [
        (
            layout_of(program, 96),
            "does not fit this binary, build id ",
        ),
        (
            right.replace(" 1.99.0", " 1.98.0"),
            "has nothing for nginx 1.99.0",
        ),
        (
            right.replace("    host ", "    guest "),
            "has no ngx_http_headers_in_t.host",
        ),
        ("nonsense".to_owned(), ": line 1: "),
        ("#".repeat(2 << 20), "has more than 1048576 bytes"),
    ]
}

/// Returns why a program can't be traced.
fn reason(report: &Value) -> String {
    let reason = report["reason"].as_str();
    reason.unwrap_or_else(|| panic!("{report:#}")).to_owned()
}

/// Returns the report about a file that runs, with a folder of the test mounted on one of the system's, for
/// `ngx-bpf` only.
fn installed_check(file: &Path, folder: &TempDir, place: &str, args: &[&str]) -> Value {
    let from = folder.path().join(place);
    fs::create_dir_all(&from).unwrap();
    let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let output = while_running(file, |pid| {
        Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(from)
            .arg(Path::new("/").join(place))
            .args([PROGRAM, "check", "--json", "--pid", &pid.to_string()])
            .args(args)
            .output()
    });
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}
