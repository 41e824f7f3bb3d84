// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf advise`: findings, each with what, why and evidence. It changes nothing.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use ngx_bpf_record::Record;
use ngx_bpf_record::format::json::write_line;
use ngx_bpf_views::advise;
use ngx_bpf_views::advise::Advisor;
use ngx_bpf_views::advise::RULES;
use ngx_bpf_views::units;

use crate::cli::view::AdviseArgs;
use crate::commands::ending::Ending;
use crate::commands::live;
use crate::commands::recorded;
use crate::follow::old_workers::OldWorkers;
use crate::host::listen_overflows::ListenOverflows;
use crate::host::terminal;
use crate::output;
use crate::pipeline::Started;

/// How long a worker is away from its event loop before that is reported, unless `--blocked` says otherwise.
const BLOCKED: Duration = Duration::from_millis(100);

/// The records, and how many requests there were.
struct Seen {
    advisor: Advisor,
    requests: u64,
    lost: u64,
    /// What is watched while nginx is traced. It is empty for files.
    watched: Arc<OnceLock<Watched>>,
}

/// What is watched besides the records, of the nginx that are there when tracing begins.
struct Watched {
    /// The workers that shut down.
    old_workers: OldWorkers,
    /// How often their accept queues are full. `None` when that can't be read.
    queues: Option<ListenOverflows>,
}

impl Seen {
    /// Creates it without a record.
    fn new() -> Self {
        Self {
            advisor: Advisor::new(),
            requests: 0,
            lost: 0,
            watched: Arc::default(),
        }
    }

    /// Adds a record.
    fn add(&mut self, record: &Record<'_>) {
        if let Record::Request(request) = record {
            self.requests += 1;
            if request.ending.tunnel
                && let Some(watched) = self.watched.get()
                && let Some(since) = watched.old_workers.old_for(request.pid)
            {
                self.advisor.tunnel_outlived(request, since);
            }
        }
        if let Record::Lost(lost) = record {
            self.lost = self.lost.saturating_add(lost.count);
        }
        self.advisor.record(record);
    }
}

/// Prints the findings.
pub fn advise(options: &AdviseArgs) -> Result<Ending> {
    if let Some(rule) = options.explain {
        let text = advise::explain(rule).unwrap_or_default();
        output::print(text.as_bytes())?;
        return Ok(Ending::Fine);
    }
    let files = &options.view.files;
    let (seen, source, is_fine) = if files.is_empty() {
        let (mut seen, traced, is_fine) = trace(options)?;
        let queues = seen.watched.get();
        let queues = queues.and_then(|watched| watched.queues.as_ref());
        if let Some(count) = queues.and_then(ListenOverflows::since) {
            seen.advisor.set_listen_overflows(count);
        }
        let lasted = u64::try_from(traced.lasted.as_nanos()).unwrap_or(u64::MAX);
        let source = format!("{}, {}", traced.name, units::time(lasted));
        (seen, source, is_fine)
    } else {
        let mut seen = Seen::new();
        let unread = recorded::each(files, &options.view.choice, |record| seen.add(record))?;
        seen.lost = seen.lost.saturating_add(unread.lost);
        let mut source = recorded::names(files);
        for (count, what) in [(unread.lines, "not read"), (unread.partly, "read in part")] {
            if count > 0 {
                source += &format!(" (lines {what}: {})", units::count(count));
            }
        }
        (seen, source, true)
    };
    let is_found = print(options, &seen, &source)?;
    Ok(match (is_fine, is_found) {
        (false, _) => Ending::Failed,
        (true, true) => Ending::Found,
        (true, false) => Ending::Fine,
    })
}

/// Traces until the end, with what the rules look at.
fn trace(options: &AdviseArgs) -> Result<(Seen, live::Traced, bool)> {
    let seen = Seen::new();
    let cell = Arc::clone(&seen.watched);
    live::trace(&options.view.choice, seen, Seen::add, |settings| {
        let extras = &mut settings.follow.extras;
        extras.config_lines = true;
        extras.blocked.get_or_insert(BLOCKED);
        settings.started = Some(watching(cell, settings.started.take()));
    })
}

/// Returns what begins to watch when tracing has begun, and then does what was asked before.
fn watching(cell: Arc<OnceLock<Watched>>, started: Option<Started>) -> Started {
    Box::new(move |begun| {
        let queues = ListenOverflows::of(&begun.pids);
        let old_workers = OldWorkers::watch(begun.pids.clone());
        let old_workers =
            old_workers.context("failed to start a thread that looks for old workers")?;
        let _ = cell.set(Watched {
            old_workers,
            queues,
        });
        started.map_or(Ok(()), |started| started(begun))
    })
}

/// Prints what the options ask for. Returns whether something was found.
fn print(options: &AdviseArgs, seen: &Seen, source: &str) -> Result<bool> {
    let is_asked = |rule: &str| options.rule.is_empty() || options.rule.contains(&rule);
    let mut findings = seen.advisor.findings();
    findings.retain(|finding| is_asked(finding.rule));
    if options.json {
        let mut lines = Vec::new();
        for finding in &findings {
            write_line(&mut lines, finding)?;
        }
        output::print(&lines)?;
        return Ok(!findings.is_empty());
    }
    let is_asked_about = |about: &str| {
        let mut asked = RULES.iter().filter(|rule| is_asked(rule.name));
        asked.any(|rule| rule.about == about)
    };
    let mut fine = seen.advisor.fine();
    fine.retain(|about| is_asked_about(about));
    let (requests, lost) = (units::count(seen.requests), units::count(seen.lost));
    let head = format!(
        "{source}: {requests} requests, {lost} lost; {} rules looked, {} found",
        findings.len() + fine.len(),
        findings.len()
    );
    let look = terminal::look(options.view.ascii);
    let text = advise::terminal(&findings, &fine, &head, look);
    output::print(text.as_bytes())?;
    Ok(!findings.is_empty())
}
