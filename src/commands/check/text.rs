// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report of `ngx-bpf check` as text, for people.

use std::fmt;

use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::sites::ProbeSite;
use nginx_binary::sites::references::References;
use ngx_bpf_record::format::escape::Escaped;

use super::report::CheckReport;
use super::report::LayoutFit;
use super::report::NginxReport;
use super::report::PlanReport;
use super::report::ProcessReport;
use crate::attach::socket_source::SocketSource;
use crate::host::escape::Line;

/// Displays a report for people.
pub struct ReportText<'a> {
    pub report: &'a CheckReport,
    /// True when details are displayed (`-v`).
    pub details: bool,
}

impl fmt::Display for ReportText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = &self.report.kernel;
        writeln!(f, "kernel {}", kernel.release)?;
        if self.details {
            for capability in &kernel.capabilities {
                writeln!(f, "  found    {capability}")?;
            }
        }
        for capability in &kernel.missing_capabilities {
            writeln!(f, "  missing  {capability}")?;
        }
        for feature in &kernel.features {
            match (feature.found, feature.optional) {
                (false, false) => writeln!(f, "  missing  {}", feature.name)?,
                _ if !self.details => {}
                (true, _) => writeln!(f, "  found    {}", feature.name)?,
                (false, true) => writeln!(f, "  missing  {} (not needed)", feature.name)?,
            }
        }
        let lacks = kernel
            .features
            .iter()
            .any(|feature| !feature.found && !feature.optional);
        if !self.details && !lacks && kernel.missing_capabilities.is_empty() {
            writeln!(f, "  it has everything that tracing needs")?;
        }
        if let Some(sockets) = kernel.sockets
            && (self.details || sockets == SocketSource::Syscall)
        {
            let source = match sockets {
                SocketSource::Tracepoint => "tracepoints",
                SocketSource::Fexit => "fexit",
                SocketSource::Syscall => "system calls",
            };
            writeln!(f, "  sockets  {source}")?;
        }
        for nginx in &self.report.nginx {
            nginx.write(f, self.details)?;
        }
        match &self.report.reason {
            None => writeln!(f, "tracing would work"),
            Some(reason) if self.report.in_part => {
                writeln!(f, "tracing would work in part only: {}", Line(reason))
            }
            Some(reason) => writeln!(f, "tracing would not work: {}", Line(reason)),
        }
    }
}

impl NginxReport {
    /// Writes the lines of this part of the report.
    fn write(&self, f: &mut fmt::Formatter<'_>, details: bool) -> fmt::Result {
        for ProcessReport { pid, workers, .. } in &self.processes {
            write!(f, "pid {pid}, workers")?;
            for worker in workers {
                write!(f, " {worker}")?;
            }
            writeln!(f, "{}", if workers.is_empty() { " none" } else { "" })?;
        }
        if let Some(path) = &self.path {
            writeln!(f, "  path       {}", Escaped(path))?;
        }
        if let Some(identity) = &self.identity {
            writeln!(f, "  version    {}", identity.version)?;
            if let Some(fork) = &identity.fork {
                writeln!(f, "  fork       {}", Line(fork))?;
            }
            if details {
                let build_id = identity.build_id.as_deref().unwrap_or("none");
                writeln!(f, "  build id   {build_id}")?;
                writeln!(f, "  signature  {}", Line(&identity.signature))?;
            }
        }
        if let Some(error) = &self.error {
            writeln!(f, "  error      {}", Line(error))?;
        }
        match &self.plan {
            Some(plan) => plan.write(f, details),
            None => Ok(()),
        }
    }
}

impl PlanReport {
    /// Writes the lines of this part of the report.
    fn write(&self, f: &mut fmt::Formatter<'_>, details: bool) -> fmt::Result {
        let layout = match self.layout {
            LayoutOrigin::Table => "built-in table",
            LayoutOrigin::File(_) => "file",
            LayoutOrigin::Installed(_) => "installed file",
            LayoutOrigin::Dwarf => "debug information",
            LayoutOrigin::Inferred => "inferred: this build is not known, and fits one that is",
        };
        write!(f, "  layout     {layout}")?;
        if let Some(file) = &self.layout_file {
            write!(f, " {}", Escaped(file))?;
        }
        let LayoutFit {
            agree,
            asked,
            differ,
            unknown,
        } = &self.layout_fit;
        if details {
            write!(
                f,
                "; {agree} of {asked} members are where its code has them"
            )?;
        }
        writeln!(f)?;
        if !differ.is_empty() {
            let differ = differ.join(", ");
            writeln!(f, "  differs    its code has elsewhere: {differ}")?;
        }
        if !unknown.is_empty() && (details || self.layout_file.is_some()) {
            let unknown = unknown.join(", ");
            writeln!(f, "  unchecked  its code does not show: {unknown}")?;
        }
        if details {
            self.probes
                .iter()
                .try_for_each(|site| write_hook(f, site))?;
        } else {
            let slow = self.probes.iter().filter(|site| !site.emulated).count();
            write!(f, "  probes     {}", self.probes.len())?;
            if slow > 0 {
                write!(
                    f,
                    ", {slow} of them slow: the kernel has to single-step them"
                )?;
            }
            writeln!(f)?;
        }
        let lacks = [&self.lack, &self.waits, &self.events];
        for lack in lacks.into_iter().flatten() {
            writeln!(f, "  lacks      {}", Line(lack))?;
        }
        Ok(())
    }
}

/// Writes where a probe would go, and why there.
fn write_hook(f: &mut fmt::Formatter<'_>, site: &ProbeSite) -> fmt::Result {
    let how = if site.emulated {
        "emulated"
    } else {
        "single-stepped: slow"
    };
    let place = match site.body {
        None => site.function.to_owned(),
        Some(body) => format!("{:#x}, the body of {}, which is dead:", body, site.function),
    };
    let References { calls, pointers } = site.references;
    let symbol = site.symbol.name();
    writeln!(
        f,
        "  probe      {place}+{}, {}, {how}, {calls} calls, {pointers} pointers, {symbol}",
        site.entry_offset, site.instruction
    )
}
