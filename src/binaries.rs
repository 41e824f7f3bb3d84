// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nginx binaries that are traced: those that are asked for, and those of masters that come
//! later, by an upgrade or, with `--wait`, by themselves.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

use crate::cli::Trace;
use crate::collect::Collector;
use crate::cost::Runs;
use crate::discover;
use crate::discover::Process;
use crate::discover::Target;
use crate::filter::Early;
use crate::lost::Counts;
use crate::message::Messages;
use crate::preflight;
use crate::preflight::Kernel;
use crate::probe::Probe;
use crate::program::Program;
use crate::program::by_binary;
use crate::source::Source;

/// How often `--wait` looks for an nginx that has started.
const WAIT: Duration = Duration::from_millis(500);

/// What is asked for, read and not yet touched.
#[derive(Default)]
pub struct Found {
    /// What can be traced.
    programs: Vec<Program>,
    /// Processes that can't, and why.
    refused: Vec<(Vec<u32>, anyhow::Error)>,
}

impl Found {
    /// Reads every binary that is to be traced. One that can't be traced does not stand in the way
    /// of the others, nor of those that are waited for. Fails when nothing is left to trace.
    pub fn read(cli: &Trace, messages: Messages) -> Result<Self> {
        let mut found = Self::default();
        if cli.wait && discover::masters()?.is_empty() {
            messages.waiting();
            return Ok(found);
        }
        let asked = cli.pids.asked();
        let targets = discover::targets(&asked)?;
        let mut errors: Vec<_> = targets
            .refused
            .into_iter()
            .map(|(_, error)| error)
            .collect();
        for targets in by_binary(targets.found) {
            let pids = targets.iter().map(|target| target.process.pid).collect();
            match Program::read(targets, &cli.layout) {
                Ok(program) => found.programs.push(program),
                Err(error) if !asked.is_empty() => errors.push(error),
                Err(error) => found.refused.push((pids, error)),
            }
        }
        if found.programs.is_empty() && !cli.wait {
            let refused = found.refused.into_iter().map(|(_, error)| error);
            return Err(all(errors.into_iter().chain(refused)));
        }
        /* What was asked for by its pid is named, also when that process has ended. */
        errors.iter().for_each(|error| messages.warn(error));
        Ok(found)
    }
}

/// Several errors in one line. There is at least one.
pub fn all(errors: impl Iterator<Item = anyhow::Error>) -> anyhow::Error {
    let mut errors: Vec<_> = errors.collect();
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let lines: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
    anyhow::anyhow!(lines.join("; "))
}

/// One binary, and its probes.
struct Traced {
    /// What is known of it, and its processes.
    program: Program,
    /// Attached to it.
    probe: Probe,
}

impl Traced {
    /// Starts to trace its processes.
    fn activate(&mut self, messages: Messages) -> Result<()> {
        self.probe.activate();
        for target in &self.program.targets {
            self.follow(&target.process, messages)?;
        }
        Ok(())
    }

    /// Traces one process and its workers.
    fn follow(&self, process: &Process, messages: Messages) -> Result<()> {
        let workers = self.probe.follow(process)?;
        messages.started(self.program.build.version, process.pid, workers);
        Ok(())
    }
}

/// What a new master runs.
enum Binary {
    /// One that is traced already.
    Known,
    /// One that was not.
    New,
}

/// All that are traced.
pub struct Binaries<'cli> {
    /// The options.
    cli: &'cli Trace,
    /// What is said on stderr.
    messages: Messages,
    /// Those whose processes have ended, too: their counters are part of the sum.
    traced: Vec<Traced>,
    /// Masters that can't be traced, which was said.
    passed_over: Vec<Process>,
    /// When it was last looked for a master that has started.
    looked: Instant,
}

impl<'cli> Binaries<'cli> {
    /// Nothing is traced yet.
    pub fn new(cli: &'cli Trace, messages: Messages) -> Self {
        Self {
            cli,
            messages,
            traced: Vec::new(),
            passed_over: Vec::new(),
            looked: Instant::now(),
        }
    }

    /// Attaches to all that was found, and then starts to trace it.
    pub fn start(&mut self, found: Found, kernel: Kernel, collector: &mut Collector) -> Result<()> {
        for (pids, error) in found.refused {
            self.pass_over(&pids, &error);
        }
        for program in found.programs {
            self.attach(program, &kernel, collector)?;
        }
        drop(kernel);
        give_back_memory();
        for traced in &mut self.traced {
            traced.activate(self.messages)?;
        }
        Ok(())
    }

    /// Loads and attaches the probes of one binary. Nothing of it is traced yet.
    fn attach(
        &mut self,
        program: Program,
        kernel: &Kernel,
        collector: &mut Collector,
    ) -> Result<()> {
        self.messages.hooks(&program.hooks);
        if program.layout.source == Source::Inferred {
            self.messages.inferred(&program);
        }
        let probe = Probe::new(kernel, &program, &Early::from(self.cli))
            .with_context(|| format!("failed to trace {}", program.shown()))?;
        collector.add(probe.events()?)?;
        self.traced.push(Traced { program, probe });
        Ok(())
    }

    /// Whether a traced process has not ended, or one may come.
    pub fn are_alive(&self) -> bool {
        self.cli.wait || self.alive() > 0
    }

    /// How many have a process that has not ended.
    pub fn alive(&self) -> usize {
        let alive = self
            .traced
            .iter()
            .filter(|traced| traced.program.is_alive());
        alive.count()
    }

    /// Traces the masters that have come since the last time.
    pub fn follow(&mut self, collector: &mut Collector) {
        self.follow_upgrades(collector);
        if self.cli.wait && self.looked.elapsed() >= WAIT {
            if let Err(error) = self.follow_started(collector) {
                self.messages.warn(&error);
            }
            self.looked = Instant::now();
        }
    }

    /// nginx replaces its binary by starting the new one from the old master: the new master and
    /// its workers are traced, too, with a layout of their own.
    fn follow_upgrades(&mut self, collector: &mut Collector) {
        while let Some(pid) = self.traced.iter().find_map(|t| t.probe.upgraded()) {
            match self.follow_master(pid, collector) {
                Ok(Binary::Known) => {}
                Ok(Binary::New) => self.messages.upgraded(pid),
                Err(error) => {
                    let what = format!("failed to follow the upgrade of nginx to pid {pid}");
                    self.pass_over(&[pid], &error.context(what));
                }
            }
        }
    }

    /// Traces the masters that have started by themselves.
    fn follow_started(&mut self, collector: &mut Collector) -> Result<()> {
        let masters = discover::masters()?;
        /* The master of an upgrade was executed before it could be listed. */
        self.follow_upgrades(collector);
        self.passed_over.retain(Process::is_alive);
        for pid in masters {
            if !self.is_known(pid)
                && let Err(error) = self.follow_master(pid, collector)
            {
                self.pass_over(&[pid], &error);
            }
        }
        Ok(())
    }

    /// Traces a new master, unless it has ended again.
    fn follow_master(&mut self, pid: u32, collector: &mut Collector) -> Result<Binary> {
        let Ok(process) = Process::open(pid) else {
            return Ok(Binary::Known);
        };
        let target = Target::of(process)?;
        let mut traced = self.traced.iter_mut();
        if let Some(same) = traced.find(|traced| traced.program.inode() == target.inode) {
            /* Its probes are there, and its workers were followed since it was executed. */
            same.follow(&target.process, self.messages)?;
            let targets = &mut same.program.targets;
            targets.retain(|target| target.process.is_alive());
            targets.push(target);
            return Ok(Binary::Known);
        }
        let program = Program::read(vec![target], &self.cli.layout)?;
        self.attach(program, &preflight::check(self.cli.sockets)?, collector)?;
        give_back_memory();
        if let Some(new) = self.traced.last_mut() {
            new.activate(self.messages)?;
        }
        Ok(Binary::New)
    }

    /// Says that these can't be traced, and remembers it while they live.
    fn pass_over(&mut self, pids: &[u32], error: &anyhow::Error) {
        let processes: Vec<_> = pids.iter().flat_map(|pid| Process::open(*pid)).collect();
        if !processes.is_empty() {
            self.messages.warn(error);
        }
        self.passed_over.extend(processes);
    }

    /// Whether this process is traced, or passed over.
    fn is_known(&self, pid: u32) -> bool {
        let targets = self.traced.iter().flat_map(|t| &t.program.targets);
        let mut known = targets
            .map(|target| &target.process)
            .chain(&self.passed_over);
        known.any(|process| process.pid == pid && process.is_alive())
    }

    /// What BPF has counted for all of them.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for traced in &self.traced {
            traced.probe.count(&mut counts);
        }
        counts
    }

    /// What the kernel has counted of each program that runs.
    pub fn runs(&self) -> BTreeMap<String, Runs> {
        let mut programs = BTreeMap::new();
        for traced in &self.traced {
            traced.probe.runs(&mut programs);
        }
        programs
    }

    /// Ends all probes. What was recorded is still in the ring buffers.
    pub fn detach(&mut self) {
        for traced in &mut self.traced {
            traced.probe.detach();
        }
    }

    /// Takes the records that wait for the end of their responses, once nothing is attached any more.
    pub fn take_held(&self) -> Vec<Vec<u8>> {
        let traced = self.traced.iter();
        traced.flat_map(|traced| traced.probe.take_held()).collect()
    }
}

/// Set-up takes ten times the memory of tracing: the allocator would keep it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
