// SPDX-License-Identifier: MIT OR Apache-2.0
//! The role of a process of nginx, which its title states.

use std::fs::File;
use std::io;
use std::io::Read as _;

use crate::host::process_stat::ProcessStat;

/// The names that titles and `/proc/PID/comm` have: nginx's, which most forks have, and that of Angie.
pub const NAMES: [&str; 2] = ["nginx", "angie"];

/// The most bytes of a title that are read. Its first bytes state the role.
const TITLE_BYTES_MAX: u64 = 64;

/// The role of a process, as its title states it (ngx_process_cycle.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Starts the workers.
    Master,
    /// Serves requests, or is a child of a master that has not set its title yet.
    Worker,
    /// Cache manager or loader.
    Helper,
    /// Has no title: `master_process off`, or a master that is still starting.
    Single,
}

impl Role {
    /// Reads the role of a process. Fails when the process has ended.
    ///
    /// A child has the title of its master until it sets its own, at the end of its initialisation
    /// (`ngx_worker_process_cycle()`). The master of an upgrade is a child of a master as well, but it has
    /// executed its program; a master that has become a daemon has not, but its parent has ended.
    pub fn read(pid: u32) -> io::Result<Self> {
        let role = Self::of_title(&title(pid)?);
        let has_title_of_parent = || {
            let stat = ProcessStat::read(pid).filter(|stat| stat.is_fork);
            let title = stat.and_then(|stat| title(stat.parent).ok());
            title.is_some_and(|title| Self::of_title(&title) == Self::Master)
        };
        Ok(match role {
            Self::Master if has_title_of_parent() => Self::Worker,
            role => role,
        })
    }

    /// Returns the role of a process; of one that has ended, `Single`.
    pub fn current(pid: u32) -> Self {
        Self::read(pid).unwrap_or(Self::Single)
    }

    /// Returns the role that a title states.
    fn of_title(title: &str) -> Self {
        match described(title) {
            Some(rest) if rest.starts_with("master process") => Self::Master,
            Some(rest) if rest.starts_with("worker process") => Self::Worker,
            Some(_) => Self::Helper,
            None => Self::Single,
        }
    }
}

/// Returns what a title says of a process of nginx, after its name. `None` when it is none.
fn described(title: &str) -> Option<&str> {
    let named = title.split_once(": ");
    let named = named.filter(|(name, _)| NAMES.contains(name));
    named.map(|(_, rest)| rest)
}

/// Returns whether a title is that of a worker that is shutting down.
fn says_shutting_down(title: &str) -> bool {
    described(title).is_some_and(|rest| rest.starts_with("worker process is shutting down"))
}

/// Returns whether a process is a worker that is shutting down. Reading its title may block for ever.
pub fn is_shutting_down(pid: u32) -> bool {
    title(pid).is_ok_and(|title| says_shutting_down(&title))
}

/// Reads the beginning of a process's command line. The process decides on its length, which may be
/// gigabytes (`PR_SET_MM_MAP`).
fn title(pid: u32) -> io::Result<String> {
    let mut title = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?
        .take(TITLE_BYTES_MAX)
        .read_to_end(&mut title)?;
    Ok(String::from_utf8_lossy(&title).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::os::unix::process::CommandExt as _;
    use std::process::Child;
    use std::process::Command;
    use std::process::Stdio;

    use super::Role;
    use super::says_shutting_down;

    /// Check which titles are those of workers that shut down.
    #[test]
    fn shutting_down() {
        for (title, expected) in [
            ("nginx: worker process is shutting down\0", true),
            ("angie: worker process is shutting down #1\0", true),
            ("nginx: worker process\0", false),
            ("my nginx: worker process is shutting down\0", false),
        ] {
            assert_eq!(says_shutting_down(title), expected, "{title}");
        }
    }

    /// Check the titles that nginx and Angie give their processes.
    #[test]
    fn titles() {
        for (title, expected) in [
            ("nginx: master process /usr/sbin/nginx\0", Role::Master),
            ("nginx: worker process\0\0\0", Role::Worker),
            ("nginx: worker process is shutting down\0", Role::Worker),
            ("nginx: cache manager process\0", Role::Helper),
            (
                "angie: master process v1.12.1 #1 [/usr/sbin/angie]\0",
                Role::Master,
            ),
            ("angie: worker process #1\0", Role::Worker),
            ("angie: cache loader process #1\0", Role::Helper),
            ("other: master process\0", Role::Single),
            ("my nginx: master process\0", Role::Single),
            ("/usr/sbin/nginx\0-g\0daemon off;\0", Role::Single),
            ("", Role::Single),
        ] {
            assert_eq!(Role::of_title(title), expected, "{title:?}");
        }
    }

    /// Starts a shell with a master's title. Returns it, and the first line that it prints.
    fn master(script: &str) -> (Child, u32) {
        let mut shell = Command::new("bash");
        shell.arg0("nginx: master process x").args(["-c", script]);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = shell.unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(shell.stdout.as_mut().unwrap());
        lines.read_line(&mut line).unwrap();
        (shell, line.trim().parse().unwrap())
    }

    /// Check a child of a master that has the title of its master, and one that has executed a program
    /// with such a title.
    #[test]
    fn children() {
        let fork = "(read line) <&0 & echo $!; wait";
        let title = "'nginx: master process y'";
        let exec = format!("(exec -a {title} bash -c 'echo $BASHPID; read line') <&0 & wait");
        for (script, expected) in [(fork, Role::Worker), (&exec, Role::Master)] {
            let (mut shell, child) = master(script);
            assert_eq!(Role::current(shell.id()), Role::Master, "{script}");
            assert_eq!(Role::current(child), expected, "{script}");
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Check that a process that has ended has no role to read.
    #[test]
    fn ended() {
        assert!(Role::read(4_194_305).is_err());
        assert_eq!(Role::current(4_194_305), Role::Single);
    }
}
