// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf summary`: where the time went, of requests that are traced now or of recorded ones.

use anyhow::Result;
use ngx_bpf_record::format::json::write_line;
use ngx_bpf_record::statistics::Settings;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_views::compare;
use ngx_bpf_views::summary;
use ngx_bpf_views::summary::About;
use ngx_bpf_views::summary::Numbers;

use crate::cli::view::SummaryArgs;
use crate::commands::choice;
use crate::commands::live;
use crate::commands::recorded;
use crate::host::terminal;
use crate::output;

/// The number of slowest requests that are kept.
const SLOWEST: usize = 10;

/// Prints a summary. Returns false when tracing failed at its end, which was reported.
pub fn summary(options: &SummaryArgs) -> Result<bool> {
    if let [before, after] = options.compare.as_slice() {
        return compare(options, before.clone(), after.clone()).map(|()| true);
    }
    let files = &options.view.files;
    if files.is_empty() {
        return live(options);
    }
    let recorded = recorded::statistics(files, &options.view.choice, &settings(options))?;
    let about = About {
        source: recorded::names(files),
        seconds: None,
        filtered: recorded.filtered,
        unread: recorded.unread,
        all: options.all,
    };
    print(options, &recorded.statistics, &about)?;
    Ok(true)
}

/// Returns what is asked of the statistics.
fn settings(options: &SummaryArgs) -> Settings {
    Settings {
        group: options.group.clone(),
        slowest: SLOWEST,
    }
}

/// Traces until the end, and prints the summary.
fn live(options: &SummaryArgs) -> Result<bool> {
    let sum = Statistics::new(settings(options));
    let args = &options.view.choice;
    let (statistics, traced, ended) = live::trace(args, sum, Statistics::add, |settings| {
        choice::ask_for(settings, &options.group);
    })?;
    let about = About {
        source: traced.name,
        seconds: Some(traced.lasted.as_secs_f64()),
        all: options.all,
        ..About::default()
    };
    print(options, &statistics, &about)?;
    Ok(ended)
}

/// Prints a summary.
fn print(options: &SummaryArgs, statistics: &Statistics, about: &About) -> Result<()> {
    if options.json {
        let mut line = Vec::new();
        write_line(&mut line, &Numbers::of(statistics, about))?;
        return output::print(&line);
    }
    let look = terminal::look(options.view.ascii);
    output::print(summary::terminal(statistics, about, look).as_bytes())
}

/// Compares two files.
fn compare(
    options: &SummaryArgs,
    before: std::path::PathBuf,
    after: std::path::PathBuf,
) -> Result<()> {
    let [before, after] = [before, after].map(|file| {
        let files = [file];
        let recorded = recorded::statistics(&files, &options.view.choice, &settings(options))?;
        anyhow::Ok((recorded::names(&files), recorded))
    });
    let (before, after) = (before?, after?);
    let sides = [&before, &after].map(|(name, recorded)| compare::Side {
        name,
        statistics: &recorded.statistics,
        unread: recorded.unread,
    });
    let [before, after] = &sides;
    let compared = compare::Comparison::of(before, after);
    if options.json {
        let mut line = Vec::new();
        write_line(&mut line, &compared)?;
        return output::print(&line);
    }
    let look = terminal::look(options.view.ascii);
    output::print(compared.terminal(options.all, look).as_bytes())
}
