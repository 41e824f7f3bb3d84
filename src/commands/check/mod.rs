// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf check`: reports what tracing would do on this machine, without doing it.

use std::fs;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::format::json::write_line;

use crate::attach::kernel::KernelSurvey;
use crate::cli::CheckArgs;
use crate::commands::reading;
use crate::follow::candidate::Candidate;
use crate::follow::lookout::End;
use crate::follow::messages;
use crate::follow::processes::Inode;
use crate::host::epoll_instances::epoll_instances;
use crate::output;
use report::CheckReport;
use report::KernelReport;
use report::NginxReport;
use report::ProcessReport;
use text::ReportText;

mod report;
mod text;

/// Writes the report to stdout. Returns whether tracing would work.
pub fn check(options: &CheckArgs) -> Result<bool> {
    let survey = KernelSurvey::read(None)?;
    let mut reason = survey.complaint();
    let is_machine_fit = reason.is_none();
    let nginx = match read_all(options) {
        Ok(nginx) => nginx,
        Err(error) => {
            reason = reason.or_else(|| Some(format!("{error:#}")));
            Vec::new()
        }
    };
    let in_part = is_machine_fit && nginx.iter().any(|nginx| nginx.plan.is_some());
    let errors = nginx.iter().filter_map(|nginx| nginx.error.as_deref());
    let errors: Vec<&str> = errors.collect();
    let reason = reason.or_else(|| (!errors.is_empty()).then(|| errors.join("; ")));
    let report = CheckReport {
        kernel: KernelReport {
            release: release()?,
            capabilities: survey.capabilities,
            missing_capabilities: survey.missing_capabilities,
            features: survey.features,
            sockets: survey.sockets,
        },
        /* Unless pids are named, it is enough that some nginx can be traced. */
        works: reason.is_none() || (in_part && options.pids.named().is_empty()),
        in_part,
        nginx,
        reason,
    };
    let mut text = Vec::new();
    if options.json {
        write_line(&mut text, &report)?;
    } else {
        let shown = ReportText {
            report: &report,
            details: options.verbose,
        };
        text = shown.to_string().into_bytes();
    }
    output::print(&text)?;
    Ok(report.works)
}

/// Reads every nginx that the user asked for. Fails when none is found.
fn read_all(options: &CheckArgs) -> Result<Vec<NginxReport>> {
    let mut found: Vec<(Option<Inode>, NginxReport)> = Vec::new();
    let add = |candidate| add(&mut found, candidate);
    let end = reading::read_all(&options.pids, &options.layout, add)?;
    if let End::Blind(error) = end {
        return Err(error);
    }
    ensure!(!found.is_empty(), messages::none_runs());
    let mut found: Vec<NginxReport> = found.into_iter().map(|(_, nginx)| nginx).collect();
    for nginx in &mut found {
        if let Some(plan) = &mut nginx.plan {
            plan.events = without_epoll(&nginx.processes);
        }
    }
    Ok(found)
}

/// Adds the result of reading a process.
fn add(found: &mut Vec<(Option<Inode>, NginxReport)>, candidate: Candidate) {
    match candidate {
        Candidate::Gone | Candidate::Unwanted(_) => {}
        Candidate::Known(process, inode) => {
            let mut found = found.iter_mut();
            if let Some((_, nginx)) = found.find(|(known, _)| *known == Some(inode)) {
                nginx.processes.push(ProcessReport::new(&process));
            }
        }
        Candidate::New(program) => {
            found.push((Some(program.inode), NginxReport::traceable(*program)))
        }
        Candidate::Refused(refused) => {
            found.push((refused.inode(), NginxReport::refused(*refused)));
        }
    }
}

/// Returns whether a process has no epoll instance, by which BPF recognizes its sockets. False when
/// the descriptors of the process can't be listed.
fn is_without_epoll(pid: u32) -> bool {
    epoll_instances(pid).is_ok_and(|mut instances| instances.next().is_none())
}

/// Returns a remark about workers that use another event method than epoll. `None` when there are
/// none.
fn without_epoll(processes: &[ProcessReport]) -> Option<String> {
    let serving = processes.iter().flat_map(|process| &process.serving);
    let without: Vec<String> = serving
        .filter(|pid| is_without_epoll(**pid))
        .map(u32::to_string)
        .collect();
    (!without.is_empty()).then(|| {
        format!(
            "no times of workers {}: they do not use epoll; set `use epoll` in `events`",
            without.join(", ")
        )
    })
}

/// Returns the kernel's release, as `uname -r`.
fn release() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.context("failed to read the kernel's release")?;
    Ok(release.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::process::Stdio;

    use super::ProcessReport;
    use super::without_epoll;

    /// Check that a process without epoll is named, and that a process that has ended, and a master
    /// without workers, are not.
    #[test]
    fn events() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let process = |serving| ProcessReport {
            pid,
            workers: Vec::new(),
            serving,
        };
        let said = without_epoll(&[process(vec![pid])]).unwrap();
        assert!(said.contains(&format!("workers {pid}:")), "{said}");
        assert_eq!(without_epoll(&[process(Vec::new())]), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(without_epoll(&[process(vec![pid])]), None);
    }
}
