// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf top` on a real terminal, with recorded requests.

use std::env;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;

use jiff::tz::TimeZone;
use ngx_bpf_record::read::Records;
use ngx_bpf_views::look::Look;
use ngx_bpf_views::top::Pace;
use ngx_bpf_views::top::Settings;
use ngx_bpf_views::top::Top;
use ngx_bpf_views::top::Wishes;
use ngx_bpf_views::top::run;

use super::common::program::kill;
use super::common::recorded::incidents;
use super::common::screen::Screen;
use super::common::sources::project;
use super::common::tool::PROGRAM;
use super::common::wait_until;

/// Opens a window with a replay that is over soon. `None` where there is no tmux; then it prints SKIP.
fn replay(columns: u16, rows: u16) -> Option<Screen> {
    let screen = Screen::open(columns, rows)?;
    let file = project().join("tests/data/incidents.jsonl");
    screen.line(&format!("$P top --speed 1000 {}", file.display()));
    screen.wait_for("LOCATION");
    screen.wait_for("/reports/");
    Some(screen)
}

/// Check the keys of the main views, and that the terminal is as before when the user leaves.
#[test]
fn keys() {
    let Some(screen) = replay(80, 24) else {
        return;
    };
    screen.wait_for("lost 0");
    screen.keys(&["u"]);
    screen.wait_for("UPSTREAM / SERVER");
    screen.keys(&["t"]);
    screen.wait_for("STATUS");
    screen.keys(&["l"]);
    screen.wait_for("LOCATION");
    screen.keys(&["/"]);
    screen.line("reports");
    screen.wait(|seen| seen.contains("/reports/ ") && !seen.contains("/downloads/ "));
    screen.keys(&["Enter"]);
    screen.wait_for("requests that were kept");
    screen.keys(&["Enter"]);
    screen.wait_for("(worker/connection/request)");
    screen.keys(&["Enter"]);
    screen.wait_for("\"request_uri\"");
    screen.keys(&["q"]);
    screen.assert_restored();
}

/// Check that the screen follows the size of the terminal, down to what hardly anything has room in.
#[test]
fn resized() {
    let Some(screen) = replay(120, 40) else {
        return;
    };
    for (columns, rows) in [(40, 10), (20, 4), (80, 24)] {
        screen.resize(columns, rows);
        screen.wait(|seen| {
            let lines: Vec<&str> = seen.lines().collect();
            let is_whole = lines.len() <= usize::from(rows);
            is_whole
                && lines
                    .first()
                    .is_some_and(|line| line.starts_with("ngx-bpf top"))
        });
    }
    screen.wait_for("LOCATION");
    screen.keys(&["q"]);
    screen.assert_restored();
}

/// Check that Ctrl-Z gives the terminal back, and that the screen is there again after that.
#[test]
fn suspended() {
    let Some(screen) = replay(80, 24) else {
        return;
    };
    screen.keys(&["C-z"]);
    screen.wait_for("Stopped");
    screen.line("clear; fg");
    screen.wait_for("LOCATION");
    screen.keys(&["C-c"]);
    screen.assert_restored();
}

/// Check that signals which end the program give the terminal back.
#[test]
fn killed() {
    for signal in ["TERM", "HUP", "INT"] {
        let Some(screen) = replay(80, 24) else {
            return;
        };
        kill(signal, screen.child());
        screen.wait(|seen| !seen.contains("LOCATION"));
        screen.assert_restored();
    }
}

/// The variable that makes the test below the program that it looks at, and the thread that panics there.
const PANICS: &str = "NGX_BPF_TEST_PANICS";

/// Check that a panic gives the terminal back before its message is written, and ends the program: one of the thread that
/// draws, and one of another thread. The program is this test, with a screen whose waterfall panics.
#[test]
fn panicked() {
    if let Some(which) = env::var_os(PANICS) {
        return show(which == "another");
    }
    let own = env::current_exe().unwrap();
    for which in ["screen", "another"] {
        let Some(screen) = Screen::open(100, 30) else {
            return;
        };
        let program = format!("{} --exact suite::top::panicked --nocapture", own.display());
        screen.line(&format!(
            "{PANICS}={which} RUST_BACKTRACE=0 {program}; echo status $?"
        ));
        screen.wait_for("LOCATION");
        screen.keys(&["Enter"]);
        screen.wait_for("requests that were kept");
        screen.keys(&["Enter"]);
        screen.wait_for("status 101");
        let seen = screen.seen();
        /* In raw mode each line would begin where the one before it ends. */
        let begins = |text: &str| seen.lines().any(|line| line.starts_with(text));
        assert!(begins("thread '") && begins("nothing is shown"), "{seen}");
        assert!(begins("status 101") && !seen.contains("LOCATION"), "{seen}");
        screen.assert_restored();
    }
}

/// Shows recorded requests. The waterfall of one panics, in a thread that has the screen or in another one.
fn show(is_in_another: bool) {
    let mut top = Top::new(Settings {
        title: "a test".to_owned(),
        group: None,
        look: Look {
            colour: true,
            ascii: false,
            width: 100,
        },
        zone: TimeZone::UTC,
        has_inflight: false,
        waterfall: match is_in_another {
            false => |_, _| panic!("nothing is shown"),
            true => |_, _| {
                let panicking = thread::spawn(|| panic!("nothing is shown"));
                panicking.join().unwrap_err();
                "the other thread has panicked".to_owned()
            },
        },
    });
    let pace = Pace::live();
    let mut records = Records::new(incidents().as_bytes());
    while let Some(record) = records.next_record().unwrap() {
        top.record(&record, pace.now().unwrap());
    }
    let wishes = Wishes {
        is_end_asked: &|| false,
        read_inflight: &|| {},
    };
    run(&Mutex::new(top), &pace, &wishes).unwrap();
}

/// Check that the program ends when its terminal goes.
#[test]
fn hung_up() {
    let Some(screen) = replay(80, 24) else {
        return;
    };
    let program = format!("/proc/{}/exe", screen.child());
    drop(screen);
    wait_until("the program has not ended", || {
        std::fs::read_link(&program).is_err()
    });
}

/// Check that a pipe is shown as it comes, and that its reader need not be at a terminal.
#[test]
fn piped() {
    let Some(screen) = Screen::open(80, 24) else {
        return;
    };
    let file = project().join("tests/data/incidents.jsonl");
    screen.line(&format!("cat {} | $P top -", file.display()));
    screen.wait_for("/reports/");
    screen.keys(&["q"]);
    screen.assert_restored();
}

/// Check that without a terminal there is an error that names the command that needs none.
#[test]
fn no_terminal() {
    let file = project().join("tests/data/incidents.jsonl");
    let mut command = Command::new(PROGRAM);
    command.arg("top").arg(file).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("stdout is no terminal: ngx-bpf summary"),
        "{stderr}"
    );
}
