// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf check`: its report is right, and tracing works as it says.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::suite::common::build::HTTP3;
use crate::suite::common::build::is_built_with;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::objcopy;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::tool::PROGRAM;

/// Runs `ngx-bpf check`.
fn check(args: &[&str]) -> Output {
    let output = Command::new(PROGRAM).arg("check").args(args).output();
    output.unwrap()
}

/// Returns the last line, which says whether tracing would work.
fn last_line(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

/// Check that everything is found for a running nginx, and that the probes are on instructions that
/// the kernel emulates.
#[test]
fn works() {
    let nginx = Nginx::start(&Config {
        workers: 2,
        ..Config::default()
    });
    let pid = nginx.pid().to_string();
    let text = check(&["--pid", &pid]);
    assert_eq!(text.status.code(), Some(0));
    assert_eq!(last_line(&text), "tracing would work");
    /*
     * The plain report has no details, because they alarm people who only want to know whether
     * tracing works.
     */
    let plain = String::from_utf8(text.stdout).unwrap();
    let verbose = String::from_utf8(check(&["-v", "--pid", &pid]).stdout).unwrap();
    for detail in ["CAP_BPF", "signature", "build id", " pointers", "members"] {
        assert!(verbose.contains(detail), "{verbose}");
        assert!(!plain.contains(detail), "{plain}");
    }
    assert!(!plain.contains("missing"), "{plain}");
    let json = check(&["--pid", &pid, "--json"]);
    assert_eq!(json.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["works"], true);
    assert_eq!(
        report["kernel"]["missing_capabilities"],
        serde_json::json!([])
    );
    /*
     * The third column of the kernels' table in docs/compatibility.md; tests/kernels/run reads this
     * line.
     */
    let sockets = report["kernel"]["sockets"].as_str().unwrap();
    assert!(
        ["tracepoint", "fexit", "syscall"].contains(&sockets),
        "{sockets}"
    );
    println!("sockets: {sockets}");
    assert_found(&report["nginx"][0], &nginx);
}

/// Asserts what the report has about a running nginx: its processes, its layout and its probes.
fn assert_found(found: &Value, nginx: &Nginx) {
    assert_eq!(found["processes"][0]["pid"], nginx.pid());
    let mut workers = nginx.workers();
    workers.sort_unstable();
    assert_eq!(found["processes"][0]["workers"], serde_json::json!(workers));
    let sources = ["table", "dwarf", "inferred"];
    assert!(
        sources.contains(&found["layout"].as_str().unwrap()),
        "{found:#}"
    );
    let fit = &found["layout_fit"];
    assert_eq!(fit["agree"], fit["asked"]);
    assert!(fit["asked"].as_u64() > Some(25), "{fit}");
    let probes = found["probes"].as_array().unwrap();
    /* What is found by code is entered only by requests that wait: there the kernel may need a trap more. */
    let of_symbols = probes.iter().filter(|probe| probe["symbol"] != "code");
    let emulated = of_symbols.map(|probe| probe["emulated"] == true);
    let emulated: Vec<_> = emulated.collect();
    assert_eq!(emulated, vec![true; probes_wanted()], "{probes:#?}");
    print_build(found);
}

/// Prints a row of docs/compatibility.md; tests/builds/run reads this line.
fn print_build(found: &Value) {
    let probes = found["probes"].as_array().unwrap();
    let of_symbols = probes.iter().filter(|probe| probe["symbol"] != "code");
    let places = of_symbols.map(|probe| {
        let instruction = probe["instruction"].as_str().unwrap();
        format!("{instruction}+{}", probe["offset"])
    });
    println!(
        "build: {} | {} | {}",
        found["version"].as_str().unwrap(),
        found["layout"].as_str().unwrap(),
        places.collect::<Vec<_>>().join(", ")
    );
}

/// Check that the reason why tracing would not work is in the last line, and that the exit code is
/// 1.
#[test]
fn does_not_work() {
    let output = check(&["--pid", "4194304"]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert!(
        line.starts_with("tracing would not work: no process with pid 4194304"),
        "{line}"
    );

    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let output = check(&["--pid", &child.id().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert!(line.contains("not nginx"), "{line}");
    /* One process can be traced, and another one can't. */
    let nginx = Nginx::simple();
    let pids = format!("{} {} 4194304", nginx.pid(), child.id());
    let output = check(&["--pid", &pids]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    for part in [
        "tracing would work in part only: ",
        "no process with pid 4194304",
        "not nginx",
    ] {
        assert!(line.contains(part), "{line}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Check that the report names the capabilities that a user lacks.
#[test]
fn without_capabilities() {
    let folder = TempDir::new().unwrap();
    crate::suite::common::program::open_to_all(folder.path());
    let copy = folder.path().join("ngx-bpf");
    copy_program(Path::new(PROGRAM), &copy);
    let output = Command::new(copy)
        .args(["check"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert_eq!(
        line,
        "tracing would not work: missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE: run as root"
    );
}

/// Check that the layout source is the binary's own debug information, then `--debug-info` after
/// the binary was stripped, and the table without either; and never a file of another build.
#[test]
fn layout_sources() {
    let folder = TempDir::new().unwrap();
    let file = compile(folder.path(), &["-g"]);
    let objcopy = |args: &[&str]| objcopy(folder.path(), args);
    objcopy(&["--only-keep-debug", "nginx", "symbols"]);
    objcopy(&["--strip-debug", "nginx", "stripped"]);
    let symbols = folder.path().join("symbols").display().to_string();
    let other = TempDir::new().unwrap();
    let other = compile(other.path(), &["-g", "-O2"]).display().to_string();

    let mut child = Command::new(file).spawn().unwrap();
    assert_eq!(layout_of(&child, &[]), "dwarf");
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = Command::new(folder.path().join("stripped"))
        .spawn()
        .unwrap();
    assert_eq!(layout_of(&child, &[]), "table");
    assert_eq!(layout_of(&child, &["--debug-info", &symbols]), "dwarf");
    let pid = child.id().to_string();
    for wrong in [other.as_str(), "/proc/self/exe", "/nowhere"] {
        let output = check(&["--pid", &pid, "--debug-info", wrong]);
        assert_eq!(output.status.code(), Some(1));
        let line = last_line(&output);
        let expected =
            line.contains("is not the debug file of build id") || line.contains("failed to read");
        assert!(expected, "{line}");
    }
    objcopy(&["--strip-debug", "symbols", "names"]);
    let names = folder.path().join("names").display().to_string();
    let line = last_line(&check(&["--pid", &pid, "--debug-info", &names]));
    assert!(
        line.contains("is of the same build, but has no debug information: also pass --layout"),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns the layout source of a process.
fn layout_of(child: &Child, args: &[&str]) -> String {
    let pid = child.id().to_string();
    let output = check(&[&["--json", "--pid", &pid], args].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let layout = &report["nginx"][0]["layout"];
    layout
        .as_str()
        .unwrap_or_else(|| panic!("{report:#}"))
        .to_owned()
}

/// Returns the number of probes of this nginx: HTTP/3 has two of its own.
pub fn probes_wanted() -> usize {
    if is_built_with(HTTP3) { 5 } else { 3 }
}

/// Compare each probe with objdump: it must be on the first instruction of the function that the
/// kernel emulates, no instruction before it may be a branch, and the arguments must be in the
/// reported registers.
#[test]
fn probes_as_objdump_has_it() {
    let nginx = Nginx::simple();
    let output = check(&["--json", "--pid", &nginx.pid().to_string()]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let binary = format!("/proc/{}/exe", nginx.pid());
    let probes = report["nginx"][0]["probes"].as_array().unwrap();
    let of_symbols = probes.iter().filter(|probe| probe["symbol"] != "code");
    let probes: Vec<&Value> = of_symbols.collect();
    assert_eq!(probes.len(), probes_wanted());
    for probe in probes {
        let function = probe["function"].as_str().unwrap();
        let line = disassemble(&binary, function);
        let (last, before) = line.split_last().unwrap();
        let (name, _) = last.1.split_once(' ').unwrap();
        let arguments = match function {
            "ngx_http_free_request" => [argument("rdi", before), argument("rsi", before)].to_vec(),
            _ => vec![argument("rdi", before)],
        };
        let expected = serde_json::json!([last.0, name, arguments]);
        let ours = ["offset", "instruction", "arguments"].map(|key| probe[key].clone());
        assert_eq!(serde_json::json!(ours), expected, "{function}: {line:?}");
    }
}

/// Returns the register that holds an argument after these instructions: the one in which it was
/// passed, or its oldest copy. It knows only the instructions with which compilers begin functions.
fn argument(register: &str, line: &[(u64, String)]) -> String {
    let mut registers = vec![register.to_owned()];
    for (_, instruction) in line {
        let text = instruction.split('#').next().unwrap().trim();
        let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
        let is = |names: &[&str]| names.iter().any(|known| name.starts_with(known));
        if is(&["endbr64", "nop", "cmp", "test"]) {
            continue;
        }
        let writes = ["mov", "lea", "add", "sub", "and", "or", "xor", "sh"];
        assert!(is(&writes), "{text}: what does it write?");
        let operands = operands.trim();
        let (from, to) = operands.rsplit_once(',').unwrap_or(("", operands));
        let Some(to) = to.strip_prefix('%') else {
            continue; // memory
        };
        let is_copy = name == "mov" && registers.iter().any(|known| from == format!("%{known}"));
        registers.retain(|register| *register != whole(to));
        if is_copy && to.starts_with('r') {
            registers.push(to.to_owned());
        }
    }
    let first = registers.into_iter().next();
    first.unwrap_or_else(|| panic!("no register holds %{register}: {line:?}"))
}

/// Returns the 64-bit register that contains another one.
fn whole(register: &str) -> String {
    if register.starts_with('r') && register.ends_with(|last: char| "dwb0123456789".contains(last))
    {
        return register.trim_end_matches(['d', 'w', 'b']).to_owned();
    }
    let name = register.trim_start_matches(['r', 'e']);
    match name.strip_suffix(['l', 'h']) {
        Some(letter) if letter.len() == 1 => format!("r{letter}x"), // al
        Some(name) => format!("r{name}"),                           // dil
        None => format!("r{name}"),                                 // edi
    }
}

/// Returns the instructions of a function with their offsets, up to the first one that the kernel
/// emulates.
fn disassemble(binary: &str, function: &str) -> Vec<(u64, String)> {
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).arg(binary).output();
        String::from_utf8(output.expect("binutils are installed by make test").stdout).unwrap()
    };
    let (start, size) = crate::suite::common::build::function(Path::new(binary), function);
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let code = run(
        "objdump",
        &[
            "-d",
            "--insn-width=16",
            &format!("--start-address={start}"),
            &format!("--stop-address={}", start + size),
        ],
    );
    let mut line = Vec::new();
    for row in code.lines() {
        let [address, bytes, text] = row.split('\t').collect::<Vec<_>>()[..] else {
            continue;
        };
        let offset = hex(address.trim().trim_end_matches(':')) - start;
        line.push((offset, text.to_owned()));
        let is_branch = text.starts_with('j') || text.starts_with("call");
        let is_branch = is_branch && !text.contains('*');
        if text.starts_with("push") || is_branch || bytes.trim() == "90" {
            return line;
        }
    }
    panic!("{function} has no instruction that the kernel emulates: {code}");
}
