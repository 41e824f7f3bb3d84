// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads nginx's own counters from its memory, in a thread of its own: a process can make a read block
//! for ever, and is then given up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use crossbeam_channel::Receiver;
use crossbeam_channel::TryRecvError;
use crossbeam_channel::unbounded;
use nginx_binary::counters::COUNTERS;
use nginx_binary::counters::CounterPlaces;

use crate::follow::program::Program;
use crate::host::memory::ForeignMemory;
use crate::host::privileges;

/// The interval at which the counters are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time limit for reading all of them. It takes 20 µs for each nginx.
const TIME: Duration = Duration::from_secs(5);

/// The most threads that may hang while they read the memory of processes. None is started any more then.
pub const HUNG_MAX: usize = 8;

/// The values of the counters, in the order of `COUNTERS`.
pub type CounterValues = [u64; COUNTERS.len()];

/// One process with counters.
#[derive(Clone, Debug)]
pub struct CounterSource {
    pid: u32,
    memory: Arc<ForeignMemory>,
    places: CounterPlaces,
}

impl CounterSource {
    /// Returns the processes of a binary whose memory was opened: masters, and workers that were asked for.
    /// None when the binary does not count.
    pub fn of(program: &Program) -> Vec<Self> {
        let Some(places) = program.counters else {
            return Vec::new();
        };
        let live = program
            .processes
            .iter()
            .filter(|process| process.is_alive());
        live.filter_map(|process| {
            Some(Self {
                pid: process.pid,
                memory: Arc::clone(process.memory.as_ref()?.as_ref().ok()?),
                places,
            })
        })
        .collect()
    }

    /// Reads all counters. `None` when one of them can't be read.
    fn read(&self) -> Option<CounterValues> {
        let pointers = self.places.in_process(self.memory.program_headers);
        let mut values = CounterValues::default();
        for (value, pointer) in values.iter_mut().zip(pointers) {
            *value = self.memory.word(self.memory.word(pointer)?)?;
        }
        Some(values)
    }
}

/// Reads the counters of all processes once a second.
pub struct CounterReader {
    /// The round that is in progress.
    round: Option<Round>,
    /// The time at which the last round began.
    begun: Option<Instant>,
    /// The processes that were given up: a thread hangs in each.
    hung: Vec<u32>,
}

/// The counters of all processes that were read in one round, by pid.
pub type Counters = BTreeMap<u32, CounterValues>;

/// What was read in one round.
#[derive(Debug)]
pub struct Reading {
    /// The counters. Empty when they are not read any more.
    pub counters: Counters,
    /// The error when a process hung, which is left out from now on.
    pub hung: Option<anyhow::Error>,
}

/// One round: a thread that reads each process once.
struct Round {
    results: Receiver<(u32, CounterValues)>,
    /// The pid that is being read.
    at: Arc<AtomicU32>,
    read: Counters,
}

impl CounterReader {
    /// Creates a reader that has read nothing yet.
    pub fn new() -> Self {
        Self {
            round: None,
            begun: None,
            hung: Vec::new(),
        }
    }

    /// Goes on with the round, or begins the next one when it is due. Returns the counters when a round has
    /// ended, or a process hangs. It never waits.
    ///
    /// Fails when a thread can't be started.
    pub fn poll(
        &mut self,
        sources: impl FnOnce() -> Vec<CounterSource>,
    ) -> Result<Option<Reading>> {
        let Some(mut round) = self.round.take() else {
            let is_due = self.begun.is_none_or(|begun| begun.elapsed() >= INTERVAL);
            if is_due && self.hung.len() < HUNG_MAX {
                self.begun = Some(Instant::now());
                let mut sources = sources();
                sources.retain(|source| !self.hung.contains(&source.pid));
                self.round = Some(Round::start(sources)?);
            }
            return Ok(None);
        };
        if round.take_results() {
            return Ok(Some(Reading {
                counters: round.read,
                hung: None,
            }));
        }
        if self.begun.is_some_and(|begun| begun.elapsed() < TIME) {
            self.round = Some(round);
            return Ok(None);
        }
        Ok(Some(self.give_up(round)))
    }

    /// Gives up the process at which a round hangs. Those that were read before it keep their counters, unless
    /// it is the last one that may hang.
    fn give_up(&mut self, round: Round) -> Reading {
        let pid = round.at.load(Ordering::Relaxed);
        self.hung.push(pid);
        let (counters, rest) = match self.hung.len() {
            HUNG_MAX => (Counters::new(), ", nor those of any other nginx"),
            _ => (round.read, ""),
        };
        let seconds = TIME.as_secs();
        let hung = anyhow!(
            "the counters of pid {pid} were not read within {seconds} s, and are not read any more{rest}"
        );
        Reading {
            counters,
            hung: Some(hung),
        }
    }
}

impl Round {
    /// Starts the thread.
    fn start(sources: Vec<CounterSource>) -> Result<Self> {
        let (sender, results) = unbounded();
        let at = Arc::new(AtomicU32::new(0));
        let reading = Arc::clone(&at);
        thread::Builder::new()
            .name("counters".to_owned())
            .spawn(move || {
                privileges::drop_all();
                for source in sources {
                    reading.store(source.pid, Ordering::Relaxed);
                    let Some(values) = source.read() else {
                        continue;
                    };
                    if sender.send((source.pid, values)).is_err() {
                        return;
                    }
                }
            })
            .context("failed to start a thread")?;
        Ok(Self {
            results,
            at,
            read: Counters::new(),
        })
    }

    /// Takes the results so far. Returns whether the thread has ended.
    fn take_results(&mut self) -> bool {
        loop {
            match self.results.try_recv() {
                Ok((pid, values)) => drop(self.read.insert(pid, values)),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    use crossbeam_channel::unbounded;

    use super::CounterReader;
    use super::CounterValues;
    use super::Counters;
    use super::HUNG_MAX;
    use super::Round;
    use super::TIME;

    /// Check that a process that hangs is given up in time and is named, that the counters of the others are
    /// kept, and that there are none any more when too many threads hang.
    #[test]
    fn hangs() {
        let mut reader = CounterReader::new();
        let (thread, results) = unbounded();
        for pid in 1..=HUNG_MAX as u32 {
            reader.round = Some(Round {
                results: results.clone(),
                at: Arc::new(AtomicU32::new(pid)),
                read: Counters::new(),
            });
            reader.begun = Some(Instant::now());
            assert!(reader.poll(Vec::new).unwrap().is_none());
            reader.begun = Instant::now().checked_sub(TIME);
            thread.send((100, CounterValues::default())).unwrap();
            let reading = reader.poll(Vec::new).unwrap().unwrap();
            let is_last = pid as usize == HUNG_MAX;
            assert_eq!(reading.counters.is_empty(), is_last, "{reading:?}");
            let error = reading.hung.unwrap().to_string();
            assert!(error.contains(&format!("pid {pid} ")), "{error}");
            assert_eq!(error.contains("any other"), is_last);
        }
        assert!(reader.poll(Vec::new).unwrap().is_none());
        assert!(reader.round.is_none());
    }
}
