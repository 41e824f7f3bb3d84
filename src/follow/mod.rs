// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controls which nginx binaries are traced: those that the user asked for, and those of masters
//! that start later, by an upgrade or, with `--wait`, for any other reason.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use nginx_binary::layout::choose::LayoutOrigin;

use crate::attach::ProbeTarget;
use crate::attach::Tracer;
use crate::attach::process_event::EndedProcess;
use crate::follow::candidate::Candidate;
use crate::follow::containers::ContainerNumbers;
use crate::follow::inflight::InflightThreads;
use crate::follow::lookout::Lookout;
use crate::follow::lookout::News;
use crate::follow::lookout::Scope;
use crate::follow::processes::Inode;
use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::follow::selection::Selection;
use crate::follow::selection::Untraceable;
use crate::follow::selection::in_one_line;
use crate::follow::selection::untraceable;
use crate::follow::settings::FileReading;
use crate::follow::settings::FollowSettings;
use crate::follow::traced::TracedBinary;
use crate::host::stderr::Messages;
use crate::host::usage::release_free_memory;

pub mod candidate;
pub mod containers;
pub mod counters;
pub mod description;
mod events;
pub mod inflight;
pub mod lookout;
pub mod messages;
pub mod old_workers;
pub mod processes;
pub mod program;
pub mod role;
pub mod selection;
pub mod settings;
pub mod stacks;
mod traced;

/// The interval at which `--wait` looks for new masters.
const WAIT: Duration = Duration::from_millis(500);

/// The longest time for handling events of a lookout in one call, since the caller has other work.
/// The rest is handled at the next call.
const TURN: Duration = Duration::from_millis(20);

/// All nginx binaries that are traced, and the processes that can't be traced.
pub struct Follower {
    /// The settings of what is traced.
    settings: FollowSettings,
    /// The printer of messages.
    messages: Messages,
    /// The traced binaries. They are dropped before the tracer.
    traced: Vec<TracedBinary>,
    /// What is loaded into the kernel.
    tracer: Tracer,
    /// How the files of processes are read.
    reading: FileReading,
    /// The containers of traced processes.
    containers: ContainerNumbers,
    /// The processes that could not be traced. Each was reported once, and is not tried again while
    /// it lives.
    untraceable: Vec<Untraceable>,
    /// The pids of processes that could not even be opened. Each was reported once, and is tried
    /// again.
    unopened: BTreeSet<u32>,
    /// The masters of upgrades that no lookout has read yet.
    upgrades: BTreeSet<u32>,
    /// The lookout that is in progress.
    lookout: Option<Lookout>,
    /// The time at which `--wait` last looked for masters.
    looked: Instant,
    /// True when the last lookout could not be started, which was reported.
    is_blind: bool,
    /// The time at which binaries that no process runs were last looked for.
    retired: Instant,
    /// True when a master lived at the last call.
    has_master: bool,
    /// The number of new processes that could not be traced.
    untraced_processes: u64,
    /// The traced processes that have ended and whose entries are not yet removed, by their pids.
    ended: BTreeMap<u32, EndedProcess>,
    inflight: InflightThreads,
}

impl Follower {
    /// Creates a follower that traces nothing yet.
    pub fn new(
        settings: FollowSettings,
        tracer: Tracer,
        reading: FileReading,
        containers: ContainerNumbers,
        messages: Messages,
    ) -> Self {
        Self {
            settings,
            messages,
            traced: Vec::new(),
            tracer,
            reading,
            containers,
            untraceable: Vec::new(),
            unopened: BTreeSet::new(),
            upgrades: BTreeSet::new(),
            lookout: None,
            looked: Instant::now(),
            is_blind: false,
            retired: Instant::now(),
            has_master: false,
            untraced_processes: 0,
            ended: BTreeMap::new(),
            inflight: InflightThreads::default(),
        }
    }

    /// Attaches to all binaries that were found, and then starts to trace their processes. A binary
    /// that can't be attached to does not stop the others.
    ///
    /// Fails when binaries were found and none of them is traced.
    pub fn start(&mut self, selection: Selection) -> Result<()> {
        let Selection {
            programs,
            refused,
            also_refused,
        } = selection;
        for refused in refused {
            self.messages.warn(&refused.error);
            self.set_aside(&refused.process, refused.inode());
        }
        self.untraceable.extend(also_refused);
        let (mut attached, mut failures) = (Vec::new(), Vec::new());
        for program in programs {
            match self.attach(program) {
                Ok(traced) => attached.push(traced),
                Err(error) => failures.push(error),
            }
        }
        release_free_memory();
        for traced in attached {
            failures.extend(self.activate(traced));
        }
        if self.traced.is_empty() && !self.settings.wait && !failures.is_empty() {
            return Err(in_one_line(failures.into_iter()));
        }
        for failure in &failures {
            self.messages.warn(failure);
        }
        Ok(())
    }

    /// Loads and attaches the probes of one binary. None of its processes is traced yet. On failure
    /// its processes are set aside.
    fn attach(&mut self, program: Program) -> Result<TracedBinary> {
        messages::probes(self.messages, &program.probe_sites);
        let is_layout_inferred = program.layout.source == LayoutOrigin::Inferred;
        messages::layout(self.messages, &program);
        let asked = self.settings.extras.blocked.is_some();
        let target = ProbeTarget {
            binary: &program.binary,
            layout: &program.layout.layout,
            is_layout_inferred,
            uri_changes: program.uri_changes,
            probes: &program.probe_sites,
            turn: asked
                .then(|| messages::turn(self.messages, &program))
                .flatten(),
        };
        let probe = self.tracer.attach(&target);
        match probe.with_context(|| format!("failed to trace {}", program.shown())) {
            Ok(probe) => Ok(TracedBinary { program, probe }),
            Err(error) => {
                self.set_aside(&program.processes, Some(program.inode));
                Err(error)
            }
        }
    }

    /// Starts to trace the processes of a binary whose probes are attached. Returns the errors of
    /// those that can't be traced. If none can, the binary is dropped.
    fn activate(&mut self, mut traced: TracedBinary) -> Vec<anyhow::Error> {
        let failed = traced.activate(&self.tracer, &mut self.containers, self.messages);
        let inode = Some(traced.program.inode);
        if traced.program.processes.is_empty() {
            self.tracer.detach(traced.probe);
        } else {
            self.traced.push(traced);
        }
        let (processes, errors): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        self.set_aside(&processes, inode);
        errors
    }

    /// Remembers that processes can't be traced, which run the file with this inode.
    fn set_aside<'p>(
        &mut self,
        processes: impl IntoIterator<Item = &'p NginxProcess>,
        inode: Option<Inode>,
    ) {
        let processes = processes.into_iter();
        self.untraceable
            .extend(processes.filter_map(|process| untraceable(process, inode)));
    }

    /// Returns whether there is something to trace now, or may be later.
    pub fn has_work(&self) -> bool {
        self.settings.wait || !self.traced.is_empty() || !self.upgrades.is_empty()
    }

    /// Returns the number of binaries with a process that has not ended.
    pub fn live_binaries(&self) -> usize {
        self.programs().filter(|program| program.is_alive()).count()
    }

    /// Follows what has become of processes since the last call: masters that have started, which
    /// BPF reports after an upgrade, and with `--wait` all others; workers that could not be traced;
    /// and binaries that no process runs any more.
    pub fn follow_processes(&mut self) {
        self.handle_events();
        self.retire();
        if self.take_news() {
            return;
        }
        if !self.upgrades.is_empty() {
            self.start_lookout(Scope::Upgraded(self.upgrades.iter().copied().collect()));
        } else if self.settings.wait && self.looked.elapsed() >= WAIT {
            self.looked = Instant::now();
            self.untraceable.retain(|(process, _)| process.is_alive());
            self.start_lookout(Scope::Masters);
        }
    }

    /// Handles the events of the lookout so far. Returns whether it is still in progress.
    fn take_news(&mut self) -> bool {
        let Some(mut lookout) = self.lookout.take() else {
            return false;
        };
        let begun = Instant::now();
        while begun.elapsed() < TURN
            && let Some(news) = lookout.poll()
        {
            match news {
                News::Candidate(pid, candidate) => self.add(pid, candidate),
                News::Failed(error) => self.messages.warn(&error),
                News::Over => return false,
            }
        }
        self.lookout = Some(lookout);
        true
    }

    /// Starts a lookout.
    fn start_lookout(&mut self, scope: Scope) {
        let mut skip = Vec::new();
        if matches!(scope, Scope::Masters) {
            let traced = self.traced.iter().flat_map(|t| &t.program.processes);
            let traced = traced.filter(|process| process.is_alive());
            let untraceable = self.untraceable.iter().map(|(process, _)| process);
            let untraceable = untraceable.filter(|process| process.is_alive());
            skip.extend(traced.map(|process| process.pid));
            skip.extend(untraceable.map(|process| process.pid));
        }
        let traced = self.traced.iter().map(|traced| traced.program.inode);
        let refused = self.untraceable.iter().filter_map(|(_, inode)| *inode);
        let known = traced.chain(refused).collect();
        match Lookout::start(scope, skip, known, &self.reading) {
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

    /// Traces a new master, unless it has ended already. Errors are reported.
    fn add(&mut self, pid: u32, candidate: Candidate) {
        /* The master of an upgrade was executed before it could be found by its title. */
        self.handle_events();
        let is_upgrade = self.upgrades.remove(&pid);
        if !matches!(candidate, Candidate::Refused(_)) {
            self.unopened.remove(&pid);
        }
        let result = match candidate {
            Candidate::Gone => Ok(()),
            Candidate::Unwanted(process) => {
                self.set_aside([&process], None);
                Ok(())
            }
            Candidate::Known(process, inode) if self.is_known(inode) => {
                self.add_to_known(process, inode)
            }
            Candidate::Known(..) => {
                /* The lookout is older than the end of this binary: the next one reads the file. */
                if is_upgrade {
                    self.upgrades.insert(pid);
                }
                Ok(())
            }
            Candidate::New(program) => {
                let result = self.add_binary(*program);
                if is_upgrade && result.is_ok() {
                    messages::upgraded(self.messages, pid);
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
                self.set_aside(&refused.process, refused.inode());
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

    /// Returns whether a file is traced, or was refused.
    fn is_known(&self, inode: Inode) -> bool {
        let mut traced = self.traced.iter();
        let mut refused = self.untraceable.iter();
        traced.any(|traced| traced.program.inode == inode)
            || refused.any(|(_, refused)| *refused == Some(inode))
    }

    /// Traces a process whose file was read before. If the file is traced and the process is the
    /// master of an upgrade, BPF has traced its workers since it was executed.
    fn add_to_known(&mut self, process: NginxProcess, inode: Inode) -> Result<()> {
        let mut traced = self.traced.iter_mut();
        let Some(same) = traced.find(|traced| traced.program.inode == inode) else {
            self.set_aside([&process], Some(inode));
            return Ok(());
        };
        let result = same.add(&self.tracer, &process, &mut self.containers, self.messages);
        let processes = &mut same.program.processes;
        processes.retain(NginxProcess::is_alive);
        match &result {
            Ok(()) => processes.push(process),
            Err(_) => self.set_aside([&process], Some(inode)),
        }
        result
    }

    /// Attaches to a file that was not traced yet, and starts to trace its processes.
    fn add_binary(&mut self, program: Program) -> Result<()> {
        let traced = self.attach(program)?;
        release_free_memory();
        self.activate(traced).pop().map_or(Ok(()), Err)
    }

    /// Returns the traced binaries.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.traced.iter().map(|traced| &traced.program)
    }

    /// Returns the number of new processes that could not be traced.
    pub fn untraced_processes(&self) -> u64 {
        self.untraced_processes
    }

    /// Returns what is loaded into the kernel.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Detaches everything. Recorded requests are still in the ring buffer.
    pub fn detach(&mut self) {
        self.tracer.deactivate();
        for traced in self.traced.drain(..) {
            self.tracer.detach(traced.probe);
        }
        self.tracer.detach_from_kernel();
    }
}
