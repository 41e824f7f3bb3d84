// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to the operator about the processes that are traced.

use std::fmt;

use nginx_binary::build::Build;
use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::layout::witness;
use nginx_binary::sites::ProbeSite;
use nginx_binary::sites::ProbeSites;

use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::host::confinement::Confinement;
use crate::host::escape::Quoted;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

/// The message when no nginx is found on the host.
const NONE_RUNS: &str = "no nginx is running: start it, or name a process with --pid";

/// Reports that a process is traced, and how many workers it has.
pub fn started(messages: Messages, build: &Build, pid: u32, workers: usize) {
    let name = build.name();
    let plural = if workers == 1 { "" } else { "s" };
    messages.print(
        Verbosity::Normal,
        format_args!("tracing {name}, pid {pid}, {workers} worker{plural}"),
    );
}

/// Reports why a process has no counters of its own, if they are asked for.
pub fn uncounted(messages: Messages, program: &Program, process: &NginxProcess) {
    let Some(memory) = &process.memory else {
        return;
    };
    let (build, pid) = (program.identity.build.name(), process.pid);
    let say = |text: fmt::Arguments<'_>| messages.print(Verbosity::Normal, text);
    if program.counters.is_none() {
        say(format_args!(
            "--stats shows nothing of {build}, pid {pid}: it does not count; build it with \
             --with-http_stub_status_module"
        ));
    } else if let Err(error) = memory {
        say(format_args!(
            "--stats shows nothing of pid {pid}: {error:#}; run ngx-bpf as root, or with CAP_SYS_PTRACE"
        ));
    }
}

/// Reports that the new master of an upgrade is traced. It may have served requests before.
pub fn upgraded(messages: Messages, pid: u32) {
    messages.print(
        Verbosity::Normal,
        format_args!("nginx was upgraded: what pid {pid} served until now was not seen"),
    );
}

/// Reports where the probes of a binary go, and what they can't measure.
pub fn probes(messages: Messages, sites: &ProbeSites) {
    for site in &sites.sites {
        probe(messages, site);
    }
    let lacks = [&sites.http3_unavailable, &sites.waits_unavailable];
    for lack in lacks.into_iter().flatten() {
        messages.print(Verbosity::Verbose, lack);
    }
}

/// Returns where the probe goes that shows turns of the event loop, and reports it, or that it has no
/// place.
pub fn turn(messages: Messages, program: &Program) -> Option<&ProbeSite> {
    match &program.probe_sites.turn {
        Ok(site) => {
            probe(messages, site);
            Some(site)
        }
        Err(reason) => {
            let build = &program.identity.build;
            messages.print(
                Verbosity::Normal,
                format_args!("--blocked shows nothing of {build}: {reason}"),
            );
            None
        }
    }
}

/// Reports where one probe goes.
fn probe(messages: Messages, site: &ProbeSite) {
    let how = if site.emulated {
        "emulated"
    } else {
        "single-stepped"
    };
    messages.print(
        Verbosity::Verbose,
        format_args!(
            "probe on {}+{}, {}, {how}",
            site.function, site.entry_offset, site.instruction
        ),
    );
}

/// Reports what is not certain about the layout of a binary: it was inferred from the code, or it is from a
/// file, and the code contradicts it or shows nothing of some members.
pub fn layout(messages: Messages, program: &Program) {
    let (build, fit) = (&program.identity.build, &program.layout.fit);
    let say = |text: fmt::Arguments<'_>| messages.print(Verbosity::Normal, text);
    if program.layout.source == LayoutOrigin::Inferred {
        say(format_args!(
            "{build} is not known: its layout is inferred from its code, which agrees in all {} members \
             that were asked for",
            fit.asked()
        ));
    }
    let Some(file) = program.layout.source.file().map(Quoted) else {
        return;
    };
    if !fit.differ.is_empty() {
        say(format_args!(
            "warning: the layout in {file} is used although the code of {build} has {} of {} members \
             elsewhere: {}; if the file is wrong, so are the records",
            fit.differ.len(),
            fit.asked(),
            witness::path_names(&fit.differ)
        ));
    }
    if !fit.unknown.is_empty() {
        say(format_args!(
            "the code of {build} does not show where {} of {} members are, which are taken from {file} \
             as they are: {}",
            fit.unknown.len(),
            fit.asked(),
            witness::path_names(&fit.unknown)
        ));
    }
}

/// Reports that no nginx runs yet.
pub fn waiting(messages: Messages) {
    messages.print(Verbosity::Normal, "waiting for nginx to start");
    if let Some(reason) = Confinement::read().of_visibility() {
        messages.print(Verbosity::Normal, reason);
    }
}

/// Returns the message when no nginx is found.
pub fn none_runs() -> &'static str {
    Confinement::read().of_visibility().unwrap_or(NONE_RUNS)
}
