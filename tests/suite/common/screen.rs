// SPDX-License-Identifier: MIT OR Apache-2.0
//! A terminal: a shell in a window of tmux, which a test types into and looks at.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::program::children;
use super::tool::PROGRAM;
use super::wait_right;

/// A window with a shell. The program is `$P` there.
pub struct Screen {
    folder: TempDir,
}

impl Screen {
    /// Opens a window of this size. `None` where there is no tmux; then it prints SKIP.
    pub fn open(columns: u16, rows: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("SKIP this machine: tmux is not installed");
            return None;
        }
        let screen = Self {
            folder: TempDir::new().unwrap(),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let shell = format!("P={PROGRAM} PS1='$ ' LANG=C.UTF-8 exec bash --norc --noprofile");
        screen.tmux(&[
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            &shell,
        ]);
        screen.wait_for("$");
        screen.line("stty -g >before");
        Some(screen)
    }

    /// Runs a command of tmux, with a server of its own.
    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.folder.path().join("socket");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(socket).args(args);
        command.current_dir(self.folder.path()).env_remove("TMUX");
        let output = command.output().expect("tmux is installed by make test");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types keys, as tmux names them.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line and its end.
    pub fn line(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.keys(&["Enter"]);
    }

    /// Changes the size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// Returns what is seen.
    pub fn seen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be, and returns it.
    pub fn wait(&self, is_right: impl Fn(&String) -> bool) {
        wait_right(|| self.seen(), is_right);
    }

    /// Waits until this is seen.
    pub fn wait_for(&self, text: &str) {
        self.wait(|seen| seen.contains(text));
    }

    /// Waits until the shell runs no program any more, and asserts that it has the terminal again, as it was.
    pub fn assert_restored(&self) {
        /* A program that has not ended yet would read what is typed. */
        wait_right(|| self.children(), Vec::is_empty);
        self.line("clear; stty -g >after; echo back again");
        self.wait(|seen| seen.lines().any(|line| line == "back again"));
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap();
        assert_eq!(read("before"), read("after"));
    }

    /// Returns the pid of the program that the shell runs.
    pub fn child(&self) -> u32 {
        self.children()[0]
    }

    /// Returns the pids of the programs that the shell runs.
    fn children(&self) -> Vec<u32> {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        children(shell.trim().parse().unwrap())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let socket = self.folder.path().join("socket");
        let mut command = Command::new("tmux");
        let _ = command.arg("-S").arg(socket).arg("kill-server").output();
    }
}
