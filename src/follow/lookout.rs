// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for processes to trace, and at them, in a thread of its own: titles, binaries and debug
//! files are other people's, and nothing that these can do holds up the records. What takes too long
//! is given up.

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
use crate::host::signals::Signals;
use nginx_binary::Options;

/// What one candidate may take. The largest nginx takes a second or two.
const TIME: Duration = Duration::from_secs(30);

/// How often it is looked whether the end was asked for, while somebody waits.
const TURN: Duration = Duration::from_millis(50);

/// Threads that were given up and have not ended. No more than these are left.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// How many of these there may be.
const LEFT_MAX: usize = 8;

/// What to look at.
pub enum Wanted {
    /// Every nginx that runs.
    Running,
    /// Every nginx with a title.
    Masters,
    /// Processes that a person has asked for.
    Asked(Vec<u32>),
    /// Processes that no one has asked for.
    Found(Vec<u32>),
}

/// A look at several candidates, one after the other.
pub struct Lookout {
    /// What was found, with the pid.
    results: Receiver<Result<(u32, Candidate)>>,
    /// Who is being looked at; 0 for no one.
    at: Arc<AtomicU32>,
    /// Set by the first who leaves: the thread, or who waits for it.
    is_left: Arc<AtomicBool>,
    /// When the last result came.
    since: Instant,
    /// A candidate hung, so that some may not have been looked at.
    has_given_up: bool,
}

/// What there is to say of a look.
pub enum News {
    /// A candidate, by its pid.
    Candidate(u32, Candidate),
    /// It could not be looked.
    Failed(anyhow::Error),
    /// All were looked at, or it was given up.
    Over,
}

impl Lookout {
    /// Starts to look. Pids of `skip` are left out, and files of `known` are not read again.
    ///
    /// Fails when too many threads hang.
    pub fn start(
        wanted: Wanted,
        skip: Vec<u32>,
        known: Vec<Inode>,
        from: &Options,
    ) -> Result<Self> {
        ensure!(
            LEFT.load(Ordering::Relaxed) < LEFT_MAX,
            "no other nginx is looked for: {LEFT_MAX} of them hang while they are read"
        );
        let (sender, results) = unbounded();
        let at = Arc::new(AtomicU32::new(0));
        let is_left = Arc::new(AtomicBool::new(false));
        let mut look = Look {
            skip,
            known,
            from: from.clone(),
            at: Arc::clone(&at),
            sender,
        };
        let is_over = Arc::clone(&is_left);
        thread::Builder::new()
            .name("lookout".to_owned())
            .spawn(move || {
                look.run(wanted);
                drop(look);
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

    /// Whether a candidate hung, so that those after it were not looked at.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// What has been found since, if anything. `News::Over` is the last of it.
    pub fn poll(&mut self) -> Option<News> {
        self.next_within(Duration::ZERO)
    }

    /// Waits for what is found next. `None` when the end was asked for.
    pub fn wait(&mut self, stop: Option<&Signals>) -> Option<News> {
        loop {
            if stop.is_some_and(Signals::is_asked) {
                return None;
            }
            if let Some(news) = self.next_within(TURN) {
                return Some(news);
            }
        }
    }

    /// What is found within a time. What hangs is given up.
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

    /// Leaves the thread to itself.
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

/// What the thread has.
struct Look {
    /// Pids that are left out.
    skip: Vec<u32>,
    /// Files that are not read again.
    known: Vec<Inode>,
    /// Where layouts come from.
    from: Options,
    /// Who is being looked at.
    at: Arc<AtomicU32>,
    /// Where results go.
    sender: Sender<Result<(u32, Candidate)>>,
}

impl Look {
    /// Looks at all of them, unless no one waits for it any more.
    fn run(&mut self, wanted: Wanted) {
        let is_asked = matches!(wanted, Wanted::Asked(_));
        let pids = match wanted {
            Wanted::Running => processes::running(&self.skip, &self.at),
            Wanted::Masters => processes::masters(&self.skip, &self.at),
            Wanted::Asked(pids) | Wanted::Found(pids) => Ok(pids),
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
            let candidate = self.look(pid, is_asked);
            self.skip.push(pid);
            self.at.store(0, Ordering::Relaxed);
            if self.sender.send(Ok((pid, candidate))).is_err() {
                return;
            }
        }
    }

    /// Looks at one of them. A fault of ours is no reason not to look at the others.
    fn look(&mut self, pid: u32, is_asked: bool) -> Candidate {
        let look = || Candidate::look(pid, is_asked, &self.known, &self.from);
        let candidate = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
            Candidate::refused(pid, anyhow!("pid {pid} can't be traced: reading it failed"))
        });
        match &candidate {
            Candidate::New(program) => self.known.push(program.inode),
            Candidate::Refused(refused) => {
                let binary = refused.binary.as_ref();
                self.known.extend(binary.map(|binary| binary.inode));
            }
            Candidate::Gone | Candidate::Known(..) => {}
        }
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

    /// Check that a thread that hangs is given up in time, that it is known which candidate it hangs
    /// at, that no one reads its title again, and that the threads that are left are counted.
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
        assert!(lookout.has_given_up());
        assert_eq!(LEFT.load(Ordering::Relaxed), 1);
        assert!(matches!(lookout.poll(), Some(News::Over)));
    }
}
