// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds and reads the processes to trace, in a thread of its own. Titles, binaries and debug files
//! belong to other users, who can make reading them block: a process that takes too long to read is
//! given up.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::unbounded;

use crate::follow::candidate::Candidate;
use crate::follow::processes;
use crate::follow::processes::Inode;
use crate::follow::settings::FileReading;
use crate::host::privileges;
use crate::host::signals::Signals;

/// The time limit for reading one process. The largest nginx takes a second or two.
const TIME: Duration = Duration::from_secs(30);

/// The interval at which a waiting caller checks whether the end was asked for.
const TURN: Duration = Duration::from_millis(50);

/// The number of threads that were given up and have not ended.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// The most such threads: no other lookout is started then.
const LEFT_MAX: usize = 8;

/// The processes that a lookout reads.
pub enum Scope {
    /// Every nginx that runs.
    Running,
    /// Every nginx master with a title.
    Masters,
    /// Processes that the user named.
    Named(Vec<u32>),
    /// New masters that BPF reported.
    Upgraded(Vec<u32>),
}

impl Scope {
    /// Returns the scope of the pids that the user named: without any, every nginx.
    fn of_user(pids: &[u32]) -> Self {
        match pids {
            [] => Self::Running,
            pids => Self::Named(pids.to_vec()),
        }
    }
}

/// A thread that reads several processes, one after the other.
pub struct Lookout {
    /// The results, each with its pid.
    results: Receiver<Result<(u32, Candidate)>>,
    /// The pid that is being read; 0 when none is.
    at: Arc<AtomicU32>,
    /// Set by the side that ends first: the thread when it ends, or the lookout when it gives up
    /// the thread.
    is_left: Arc<AtomicBool>,
    /// The time of the last result, or of the start.
    since: Instant,
    /// True when a process hung, so that the processes after it were not read.
    has_given_up: bool,
}

/// An event of a lookout.
pub enum News {
    /// A process was read.
    Candidate(u32, Candidate),
    /// The processes could not be listed.
    Failed(anyhow::Error),
    /// The lookout has ended: all processes were read, or the thread was given up.
    Over,
}

impl Lookout {
    /// Starts the thread. It skips the pids of `skip`, and does not read the files of `known`
    /// again.
    ///
    /// Fails when too many threads hang.
    pub fn start(
        scope: Scope,
        skip: Vec<u32>,
        known: Vec<Inode>,
        reading: &FileReading,
    ) -> Result<Self> {
        ensure!(
            LEFT.load(Ordering::Relaxed) < LEFT_MAX,
            "no other nginx is looked for: {LEFT_MAX} of them hang while they are read"
        );
        let (sender, results) = unbounded();
        let at = Arc::new(AtomicU32::new(0));
        let is_left = Arc::new(AtomicBool::new(false));
        let mut state = LookoutThread {
            skip,
            known,
            reading: reading.clone(),
            at: Arc::clone(&at),
            sender,
        };
        let is_over = Arc::clone(&is_left);
        thread::Builder::new()
            .name("lookout".to_owned())
            .spawn(move || {
                state.read_all(scope);
                drop(state);
                if is_over.swap(true, Ordering::Relaxed) {
                    LEFT.fetch_sub(1, Ordering::Relaxed);
                }
            })
            .context("failed to start a thread")?;
        Ok(Self {
            results,
            at,
            is_left,
            since: Instant::now(),
            has_given_up: false,
        })
    }

    /// Returns the next event, if there is one. The last event is `News::Over`.
    pub fn poll(&mut self) -> Option<News> {
        self.next_within(Duration::ZERO)
    }

    /// Waits for the next event. Returns `None` when the end was asked for.
    fn wait(&mut self, signals: Option<&Signals>) -> Option<News> {
        loop {
            if signals.is_some_and(Signals::is_end_asked) {
                return None;
            }
            if let Some(news) = self.next_within(TURN) {
                return Some(news);
            }
        }
    }

    /// Waits for the next event, at most this time. A thread that hangs is given up.
    fn next_within(&mut self, time: Duration) -> Option<News> {
        let news = match self.results.recv_timeout(time) {
            Ok(Ok((pid, candidate))) => News::Candidate(pid, candidate),
            Ok(Err(error)) => News::Failed(error),
            Err(RecvTimeoutError::Disconnected) => return Some(News::Over),
            Err(RecvTimeoutError::Timeout) if self.since.elapsed() < TIME => return None,
            Err(RecvTimeoutError::Timeout) => self.give_up(),
        };
        self.since = Instant::now();
        Some(news)
    }

    /// Gives up the thread. It goes on until the system call in which it hangs returns.
    fn give_up(&mut self) -> News {
        LEFT.fetch_add(1, Ordering::Relaxed);
        if self.is_left.swap(true, Ordering::Relaxed) {
            LEFT.fetch_sub(1, Ordering::Relaxed);
        }
        let (_, results) = unbounded();
        self.results = results;
        self.has_given_up = true;
        let time = TIME.as_secs();
        match self.at.load(Ordering::Relaxed) {
            0 => News::Failed(anyhow!("failed to read /proc within {time} s")),
            pid => {
                let error = anyhow!(
                    "pid {pid} can't be traced: its binary was not read within {time} s; is it on \
                     a disk that answers?"
                );
                News::Candidate(pid, Candidate::refused(pid, error))
            }
        }
    }
}

/// How the reading of all processes has ended.
pub enum End {
    /// All were read.
    Over,
    /// The end was asked for.
    Asked,
    /// A lookout could not be started, for this reason: the processes that are left were not read.
    Blind(anyhow::Error),
}

/// Reads all processes that the user asked for, and passes each on. The processes after one that hangs
/// are read by another lookout.
///
/// Fails when the processes can't be listed.
pub fn read_all(
    pids: &[u32],
    reading: &FileReading,
    signals: Option<&Signals>,
    mut pass_on: impl FnMut(Candidate),
) -> Result<End> {
    let (mut seen, mut known) = (Vec::new(), Vec::new());
    loop {
        let scope = Scope::of_user(pids);
        let mut lookout = match Lookout::start(scope, seen.clone(), known.clone(), reading) {
            Ok(lookout) => lookout,
            Err(error) => return Ok(End::Blind(error)),
        };
        loop {
            match lookout.wait(signals) {
                None => return Ok(End::Asked),
                Some(News::Over) => break,
                Some(News::Failed(error)) => return Err(error),
                Some(News::Candidate(pid, candidate)) => {
                    seen.push(pid);
                    known.extend(candidate.inode_read());
                    pass_on(candidate);
                }
            }
        }
        if !lookout.has_given_up {
            return Ok(End::Over);
        }
    }
}

/// The state of the thread.
struct LookoutThread {
    /// The pids that are skipped.
    skip: Vec<u32>,
    /// The files that are not read again.
    known: Vec<Inode>,
    reading: FileReading,
    /// The pid that is being read; 0 when none is.
    at: Arc<AtomicU32>,
    /// The channel for the results.
    sender: Sender<Result<(u32, Candidate)>>,
}

impl LookoutThread {
    /// Reads all processes, until the receiver of the results is dropped.
    fn read_all(&mut self, scope: Scope) {
        if let Some(capabilities) = self.reading.capabilities {
            /* If it fails, the main thread reports why. */
            let _ = privileges::keep_only(capabilities);
        }
        let is_named = matches!(scope, Scope::Named(_));
        let pids = match scope {
            Scope::Running => processes::running_nginx(&self.skip, &self.at),
            Scope::Masters => processes::running_masters(&self.skip, &self.at),
            Scope::Named(pids) | Scope::Upgraded(pids) => Ok(pids),
        };
        let pids = match pids {
            Ok(pids) => pids,
            Err(error) => return drop(self.sender.send(Err(error))),
        };
        for pid in pids {
            if self.skip.contains(&pid) {
                continue;
            }
            self.at.store(pid, Ordering::Relaxed);
            let candidate = self.read(pid, is_named);
            self.skip.push(pid);
            self.at.store(0, Ordering::Relaxed);
            if self.sender.send(Ok((pid, candidate))).is_err() {
                return;
            }
        }
    }

    /// Reads one process. A panic while reading it does not keep the others from being read.
    fn read(&mut self, pid: u32, is_named: bool) -> Candidate {
        let read = || Candidate::read(pid, is_named, &self.known, &self.reading);
        let candidate = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
            Candidate::refused(pid, anyhow!("pid {pid} can't be traced: reading it failed"))
        });
        self.known.extend(candidate.inode_read());
        candidate
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use crossbeam_channel::unbounded;

    use super::Candidate;
    use super::LEFT;
    use super::Lookout;
    use super::News;
    use super::TIME;

    /// Check that a thread that hangs is given up in time, that the process at which it hangs is
    /// known and its title is not read again, and that hanging threads are counted.
    #[test]
    fn hangs() {
        let (_thread, results) = unbounded();
        let mut lookout = Lookout {
            results,
            at: Arc::new(AtomicU32::new(std::process::id())),
            is_left: Arc::new(AtomicBool::new(false)),
            since: Instant::now(),
            has_given_up: false,
        };
        assert!(lookout.poll().is_none());
        lookout.since = Instant::now().checked_sub(TIME).unwrap();
        let Some(News::Candidate(pid, Candidate::Refused(refused))) = lookout.poll() else {
            panic!("it was not given up");
        };
        assert_eq!(pid, std::process::id());
        assert!(refused.error.to_string().contains("not read within 30 s"));
        assert_eq!(refused.process.unwrap().role, None);
        assert!(lookout.has_given_up);
        assert_eq!(LEFT.load(Ordering::Relaxed), 1);
        assert!(matches!(lookout.poll(), Some(News::Over)));
    }
}
