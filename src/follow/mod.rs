// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nginx binaries that are traced: those that are asked for, and those of masters that come
//! later, by an upgrade or, with `--wait`, by themselves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

use crate::attach::Probe;
use crate::attach::kernel;
use crate::attach::kernel::Kernel;
use crate::attach::socket_source::SocketSource;
use crate::attach::trial::Method;
use crate::cli::Trace;
use crate::decode::ring::Collector;
use crate::follow::candidate::Binary;
use crate::follow::candidate::Candidate;
use crate::follow::found::Found;
use crate::follow::found::PassedOver;
use crate::follow::found::all;
use crate::follow::found::passed;
use crate::follow::lookout::Lookout;
use crate::follow::lookout::News;
use crate::follow::lookout::Wanted;
use crate::follow::processes::Inode;
use crate::follow::processes::Process;
use crate::follow::program::Program;
use crate::pipeline::counts::Counts;
use crate::pipeline::filter::Early;
use crate::pipeline::messages::Messages;
use crate::pipeline::overhead::Runs;
use nginx_binary::layout::choose::Source;

pub mod candidate;
pub mod found;
pub mod lookout;
pub mod processes;
pub mod program;

/// How often `--wait` looks for an nginx that has started.
const WAIT: Duration = Duration::from_millis(500);

/// How long the records may wait for what a look has found: the rest is taken at the next tick.
const TURN: Duration = Duration::from_millis(20);

/// One binary, and its probes.
struct Traced {
    /// What is known of it, and its processes.
    program: Program,
    /// Attached to it.
    probe: Probe,
}

impl Traced {
    /// Starts to trace its processes. Those that can't be traced, and why.
    fn activate(&mut self, messages: Messages) -> Vec<(Process, anyhow::Error)> {
        self.probe.activate();
        let mut failed = Vec::new();
        for process in std::mem::take(&mut self.program.processes) {
            match self.follow(&process, messages) {
                Ok(()) => self.program.processes.push(process),
                Err(error) => failed.push((process, error)),
            }
        }
        failed
    }

    /// Traces one process and its workers.
    fn follow(&self, process: &Process, messages: Messages) -> Result<()> {
        let workers = self.probe.follow(process)?;
        messages.started(self.program.build.version, process.pid, workers);
        Ok(())
    }
}

/// All that are traced.
pub struct Binaries<'cli> {
    /// The options.
    cli: &'cli Trace,
    /// What is said on stderr.
    messages: Messages,
    /// Those whose processes have ended, too: their counters are part of the sum.
    traced: Vec<Traced>,
    /// Processes that can't be traced, which was said.
    passed_over: Vec<PassedOver>,
    /// Pids of processes that could not even be opened, which was said. They are looked at again.
    unopened: BTreeSet<u32>,
    /// The masters of upgrades that have not been looked at.
    upgrades: BTreeSet<u32>,
    /// A look that is under way.
    lookout: Option<Lookout>,
    /// When it was last looked for a master that has started.
    looked: Instant,
    /// It can't be looked any more, and that was said.
    is_blind: bool,
    /// What the kernel has let us do: it is not tried again while records wait.
    tried: Option<(SocketSource, Method)>,
}

impl<'cli> Binaries<'cli> {
    /// Nothing is traced yet.
    pub fn new(cli: &'cli Trace, messages: Messages) -> Self {
        Self {
            cli,
            messages,
            traced: Vec::new(),
            passed_over: Vec::new(),
            unopened: BTreeSet::new(),
            upgrades: BTreeSet::new(),
            lookout: None,
            looked: Instant::now(),
            is_blind: false,
            tried: None,
        }
    }

    /// Attaches to all that was found, and then starts to trace it. One that can't be attached to does
    /// not stand in the way of the others.
    ///
    /// Fails when there was something to trace, and nothing is left of it.
    pub fn start(&mut self, found: Found, kernel: Kernel, collector: &mut Collector) -> Result<()> {
        let Found {
            programs,
            refused,
            also_refused,
        } = found;
        for refused in refused {
            self.messages.warn(&refused.error);
            self.pass_over(refused.process, refused.binary.as_ref());
        }
        self.passed_over.extend(also_refused);
        let mut failures = Vec::new();
        for program in programs {
            failures.extend(self.attach(program, &kernel, collector).err());
        }
        self.tried = Some((kernel.sockets, kernel.method));
        drop(kernel);
        give_back_memory();
        for traced in std::mem::take(&mut self.traced) {
            failures.extend(self.activate(traced));
        }
        if self.traced.is_empty() && !self.cli.wait && !failures.is_empty() {
            return Err(all(failures.into_iter()));
        }
        for failure in &failures {
            self.messages.warn(failure);
        }
        Ok(())
    }

    /// Loads and attaches the probes of one binary. Nothing of it is traced yet. When that fails its
    /// processes are passed over.
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
        let probe = Probe::new(kernel, &program, &Early::from(self.cli)).and_then(|probe| {
            collector.add(probe.events()?)?;
            Ok(probe)
        });
        match probe.with_context(|| format!("failed to trace {}", program.shown())) {
            Ok(probe) => {
                self.traced.push(Traced { program, probe });
                Ok(())
            }
            Err(error) => {
                self.pass_all_over(program);
                Err(error)
            }
        }
    }

    /// Starts to trace a binary that is attached to. Why some of its processes can't be traced; without
    /// any that can it is let go.
    fn activate(&mut self, mut traced: Traced) -> Vec<anyhow::Error> {
        let failed = traced.activate(self.messages);
        let inode = Some(traced.program.inode);
        if !traced.program.processes.is_empty() {
            self.traced.push(traced);
        }
        let (processes, errors): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        let passed_over = processes
            .iter()
            .filter_map(|process| passed(process, inode));
        self.passed_over.extend(passed_over);
        errors
    }

    /// Remembers a process that can't be traced for as long as it lives.
    fn pass_over(&mut self, process: Option<Process>, binary: Option<&Binary>) {
        let inode = binary.map(|binary| binary.inode);
        let passed_over = process.and_then(|process| passed(&process, inode));
        self.passed_over.extend(passed_over);
    }

    /// The same of all processes of a binary.
    fn pass_all_over(&mut self, program: Program) {
        let inode = Some(program.inode);
        let processes = program.processes.iter();
        self.passed_over
            .extend(processes.filter_map(|process| passed(process, inode)));
    }

    /// Whether a traced process has not ended, or one may come.
    pub fn are_alive(&self) -> bool {
        self.cli.wait || self.alive() > 0 || !self.upgrades.is_empty()
    }

    /// How many have a process that has not ended.
    pub fn alive(&self) -> usize {
        let alive = self
            .traced
            .iter()
            .filter(|traced| traced.program.is_alive());
        alive.count()
    }

    /// Traces the masters that have come since the last time: those of upgrades, which BPF reports,
    /// and with `--wait` those that have started by themselves.
    pub fn follow(&mut self, collector: &mut Collector) {
        self.hear_of_upgrades();
        if self.is_looking(collector) {
            return;
        }
        if !self.upgrades.is_empty() {
            self.look(Wanted::Found(self.upgrades.iter().copied().collect()));
        } else if self.cli.wait && self.looked.elapsed() >= WAIT {
            self.looked = Instant::now();
            self.passed_over.retain(|(process, _)| process.is_alive());
            self.look(Wanted::Masters);
        }
    }

    /// Takes what a look has found since. Whether it is still under way.
    fn is_looking(&mut self, collector: &mut Collector) -> bool {
        let Some(mut lookout) = self.lookout.take() else {
            return false;
        };
        let begun = Instant::now();
        while begun.elapsed() < TURN
            && let Some(news) = lookout.poll()
        {
            match news {
                News::Candidate(pid, candidate) => self.meet(pid, candidate, collector),
                News::Failed(error) => self.messages.warn(&error),
                News::Over => return false,
            }
        }
        self.lookout = Some(lookout);
        true
    }

    /// nginx replaces its binary by starting the new one from the old master: the new master and
    /// its workers are traced, too, with a layout of their own.
    fn hear_of_upgrades(&mut self) {
        while let Some(pid) = self.traced.iter().find_map(|t| t.probe.upgraded()) {
            self.upgrades.insert(pid);
        }
    }

    /// Starts to look.
    fn look(&mut self, wanted: Wanted) {
        let mut skip = Vec::new();
        if matches!(wanted, Wanted::Masters) {
            let traced = self.traced.iter().flat_map(|t| &t.program.processes);
            let traced = traced.filter(|process| process.is_alive());
            let passed_over = self.passed_over.iter().map(|(passed, _)| passed);
            let passed_over = passed_over.filter(|passed| passed.is_alive());
            skip.extend(traced.map(|process| process.pid));
            skip.extend(passed_over.map(|passed| passed.pid));
        }
        let traced = self.traced.iter().map(|traced| traced.program.inode);
        let refused = self.passed_over.iter().filter_map(|(_, inode)| *inode);
        let known = traced.chain(refused).collect();
        match Lookout::start(wanted, skip, known, &(&self.cli.layout).into()) {
            Ok(lookout) => {
                self.is_blind = false;
                self.lookout = Some(lookout);
            }
            Err(error) => {
                self.upgrades.clear();
                if !self.is_blind {
                    self.messages.warn(&error);
                }
                self.is_blind = true;
            }
        }
    }

    /// Traces a new master, unless it has ended again.
    fn meet(&mut self, pid: u32, candidate: Candidate, collector: &mut Collector) {
        /* The master of an upgrade was executed before it could be found by its title. */
        self.hear_of_upgrades();
        let is_upgrade = self.upgrades.remove(&pid);
        if !matches!(candidate, Candidate::Refused(_)) {
            self.unopened.remove(&pid);
        }
        let result = match candidate {
            Candidate::Gone => Ok(()),
            Candidate::Known(process, inode) => self.join(process, inode),
            Candidate::New(program) => {
                let result = self.trace(*program, collector);
                if is_upgrade && result.is_ok() {
                    self.messages.upgraded(pid);
                }
                result
            }
            Candidate::Refused(refused) if refused.process.is_none() => {
                if !self.unopened.insert(pid) {
                    return;
                }
                Err(refused.error)
            }
            Candidate::Refused(refused) => {
                self.pass_over(refused.process, refused.binary.as_ref());
                Err(refused.error)
            }
        };
        if let Err(mut error) = result {
            if is_upgrade {
                let what = format!("failed to follow the upgrade of nginx to pid {pid}");
                error = error.context(what);
            }
            self.messages.warn(&error);
        }
    }

    /// Traces a process whose file was looked at before. If that is traced, the probes are there, and
    /// of an upgrade its workers were followed since it was executed.
    fn join(&mut self, process: Process, inode: Inode) -> Result<()> {
        let mut traced = self.traced.iter_mut();
        let Some(same) = traced.find(|traced| traced.program.inode == inode) else {
            self.passed_over.extend(passed(&process, Some(inode)));
            return Ok(());
        };
        let result = same.follow(&process, self.messages);
        let processes = &mut same.program.processes;
        processes.retain(Process::is_alive);
        match &result {
            Ok(()) => processes.push(process),
            Err(_) => self.passed_over.extend(passed(&process, Some(inode))),
        }
        result
    }

    /// Attaches to a file that was not traced, and starts to trace it.
    fn trace(&mut self, program: Program, collector: &mut Collector) -> Result<()> {
        let kernel = match self.tried {
            Some((sockets, method)) => Kernel::again(sockets, method),
            None => kernel::check(self.cli.sockets),
        };
        let kernel = match kernel {
            Ok(kernel) => kernel,
            Err(error) => {
                self.pass_all_over(program);
                return Err(error);
            }
        };
        self.attach(program, &kernel, collector)?;
        drop(kernel);
        give_back_memory();
        let new = self.traced.pop();
        let mut failures = new.map_or_else(Vec::new, |new| self.activate(new));
        failures.pop().map_or(Ok(()), Err)
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
