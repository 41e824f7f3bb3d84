// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests the configurations of packaging/pipelines whose programs are available here: recorded
//! lines go in, and all of them must come out. Each daemon has its own configuration, files and
//! sockets.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use super::common::record::Line;
use super::common::recorded::fetched;
use super::common::recorded::incidents;
use super::common::recorded::recorded;
use super::common::wait_for;

/// The number of records that each daemon receives.
const RECORDS: usize = 10_000;

/// A daemon in the foreground. It ends with the test.
struct Daemon {
    child: Child,
    /// The folder with all its files.
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with the configuration `name` of packaging/pipelines. Paths are replaced by paths
    /// of this folder, and `header` is put before the configuration. `args` make it use files of
    /// its own.
    fn start(program: &Path, name: &str, header: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let config = fs::read_to_string(configurations().join(name)).unwrap();
        let config = config.replace("/var/log/ngx-bpf/", &format!("{path}/"));
        let header = header.replace("{}", path);
        fs::write(folder.path().join("config"), header + &config).unwrap();
        fs::write(folder.path().join("requests.json"), "").unwrap();
        let child = Command::new(program)
            .args(args.iter().map(|arg| arg.replace("{}", path)))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Writes the records in two parts, and waits until the same number has arrived in the file
    /// `name`.
    fn pass(&mut self, records: &[String], name: &str) -> Vec<String> {
        let mut input = fs::OpenOptions::new()
            .append(true)
            .open(self.folder.path().join("requests.json"))
            .unwrap();
        let arrived = self.folder.path().join(name);
        let (first, second) = records.split_at(RECORDS / 3);
        input.write_all(first.concat().as_bytes()).unwrap();
        self.wait_for(&arrived, first.len());
        input.write_all(second.concat().as_bytes()).unwrap();
        self.wait_for(&arrived, records.len())
    }

    /// Waits until a file has this number of lines, and returns them.
    fn wait_for(&mut self, path: &Path, count: usize) -> Vec<String> {
        wait_for(|| {
            let bytes = fs::read(path).unwrap_or_default();
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            if lines.clone().count() >= count && bytes.ends_with(b"\n") {
                let lines = lines.map(|line| String::from_utf8(line.to_vec()).unwrap());
                return Ok(lines.collect());
            }
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the daemon has ended"
            );
            Err(format!("{} of {count}", lines.count()))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the configurations.
fn configurations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/pipelines")
}

/// Returns distinct records. Some of them are as long as a line may be.
fn records() -> Vec<String> {
    let recorded: Vec<Value> = recorded()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbered = recorded.iter().cycle().take(RECORDS).enumerate();
    let lines = numbered.map(|(n, record)| {
        let mut record = record.clone();
        record["connection"] = n.into();
        if n % 100 == 0 {
            let length = format!("{record}\n").len();
            let uri = record["request_uri"].as_str().unwrap_or("/").to_owned();
            let fill = 4095_usize.saturating_sub(length);
            record["request_uri"] = (uri + &"x".repeat(fill)).into();
        }
        format!("{record}\n")
    });
    let lines: Vec<String> = lines.collect();
    assert!(lines.iter().all(|line| line.len() <= 4095));
    lines
}

/// Asserts that every record has arrived unchanged and in order, and that the failed requests were
/// selected.
fn assert_passes(mut daemon: Daemon, name: &str) {
    let records = records();
    let arrived = daemon.pass(&records, &format!("{name}.json"));
    assert!(arrived == records, "{} lines", arrived.len());
    let is_failed = |line: &&String| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["status"].as_u64() >= Some(500)
    };
    let expected = records.iter().filter(is_failed).count();
    let failed = daemon.folder.path().join(format!("{name}-failed.log"));
    let failed = daemon.wait_for(&failed, expected);
    assert_eq!(failed.len(), expected);
    assert!(
        failed[0].contains(" 502 GET /api/users/1/fail 127.0.0.1:"),
        "{failed:?}"
    );
}

/// Check that rsyslog passes on every record, and parses it.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn rsyslog() {
    let header = "global(workDirectory=\"{}\")\n";
    let args = ["-n", "-f", "{}/config", "-i", "{}/pid"];
    /* Where another system log is installed, rsyslog is unpacked and not installed. */
    let installed = PathBuf::from("/usr/sbin/rsyslogd");
    let installed = Some(installed).filter(|program| program.exists());
    let program = installed.unwrap_or_else(|| fetched("bin/rsyslogd"));
    assert_passes(
        Daemon::start(&program, "rsyslog/ngx-bpf.conf", header, &args),
        "rsyslog",
    );
}

/// Check that syslog-ng passes on every record, and parses it.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn syslog_ng() {
    let program = fetched("syslog-ng/run");
    let args = [
        "--foreground",
        "--no-caps",
        "--cfgfile={}/config",
        "--persist-file={}/persist",
        "--pidfile={}/pid",
        "--control={}/control",
    ];
    let header = "@version: 3.35\n";
    assert_passes(
        Daemon::start(&program, "syslog-ng/ngx-bpf.conf", header, &args),
        "syslog-ng",
    );
}

/// Check that Vector's compiler accepts its programs, and that they keep each record and its time
/// to the nanosecond. Also check that the other configurations follow the grammar of their
/// programs.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn vector() {
    let python = fetched("python/bin/python");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg(root.join("tests/pipelines.py"))
        .arg(configurations())
        .arg(root.join("tests/data/records.jsonl"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let count = recorded().lines().count();
    assert_eq!(output.stdout, format!("{count}\n").into_bytes());
}

/// Check that Fluent Bit passes on every record unchanged, in order and with its time, from a pipe
/// and from the file. No package provides it.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn fluent_bit() {
    let records = records();
    for config in ["stdin.conf", "tail.conf"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        for name in [config, "parsers.conf"] {
            let text = fs::read_to_string(configurations().join("fluent-bit").join(name)).unwrap();
            let text = text.replace("/var/log/ngx-bpf", path.to_str().unwrap());
            let text = text.replace("/var/lib/fluent-bit", path.to_str().unwrap());
            fs::write(path.join(name), text).unwrap();
        }
        fs::write(path.join("requests.json"), records.concat()).unwrap();
        let mut child = Command::new("fluent-bit")
            .args(["-c", config])
            .current_dir(&path)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(path.join("out.json")).unwrap())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let mut daemon = Daemon { child, folder };
        if config == "stdin.conf" {
            pipe.write_all(records.concat().as_bytes()).unwrap();
        }
        let arrived = daemon.wait_for(&path.join("out.json"), RECORDS);
        assert_eq!(arrived.len(), RECORDS);
        for (arrived, sent) in arrived.iter().zip(&records) {
            let mut arrived: Value = serde_json::from_str(arrived).unwrap();
            let sent: Value = serde_json::from_str(sent).unwrap();
            let date = arrived.as_object_mut().unwrap().remove("date").unwrap();
            let microseconds = sent["time"].as_str().unwrap().split_at(26).0;
            assert_eq!(date, format!("{microseconds}Z"));
            assert_eq!(arrived, sent);
        }
    }
}

/// Check that Fluent Bit's parsers name the right key, and that their format matches its values to
/// the last digit.
#[test]
fn parsers_of_fluent_bit() {
    let parsers = fs::read_to_string(configurations().join("fluent-bit/parsers.conf")).unwrap();
    let values = |key: &str| {
        let lines = parsers.lines().map(str::trim);
        let lines = lines.filter(|line| line.starts_with(key));
        let values = lines.map(|line| line.split_whitespace().nth(1).unwrap());
        values.collect::<Vec<&str>>()
    };
    assert_eq!(values("Time_Key"), ["time"; 2]);
    let formats = [
        ("%Y", "4"),
        ("%m", "2"),
        ("%d", "2"),
        ("%H", "2"),
        ("%M", "2"),
        ("%S", "2"),
        ("%L", "9"),
    ];
    let schema = json_schema_of_time();
    let stated = values("Time_Format");
    assert_eq!(stated.len(), 2);
    for format in stated {
        let mut pattern = regex_of(format);
        for (name, digits) in formats {
            pattern = pattern.replace(name, &format!(r"\d{{{digits}}}"));
        }
        assert_eq!(pattern, schema);
    }
}

/// Returns a format as a regular expression that matches a whole text.
fn regex_of(format: &str) -> String {
    format!("^{}$", format.replace('.', r"\."))
}

/// Returns the pattern of `time` in the schema.
fn json_schema_of_time() -> String {
    let schema = include_str!("../../docs/schema/record.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    schema["$defs"]["request"]["properties"]["time"]["pattern"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Check that no key of a record is one that Vector's `exec` source fills itself, except `pid`,
/// which it leaves unchanged when it exists.
#[test]
fn keys_of_vector() {
    let schema = include_str!("../../docs/schema/record.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let filled = [
        "host",
        "pid",
        "command",
        "stream",
        "source_type",
        "timestamp",
        "message",
    ];
    let mut common = BTreeSet::new();
    for record in ["request", "connection", "blocked", "lost"] {
        let keys = schema["$defs"][record]["properties"]
            .as_object()
            .unwrap()
            .keys();
        common.extend(keys.filter(|key| filled.contains(&key.as_str())).cloned());
    }
    assert_eq!(common, BTreeSet::from(["pid".to_owned()]));
}

/// Check that the recorded lines are what the tool writes: each line conforms to the schema.
#[test]
fn recorded_lines() {
    let recorded = recorded().lines().chain(incidents().lines());
    assert!(recorded.map(Line::parse).count() > 200);
}
