// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records from files, for the commands that show records. Nothing is attached, and no privilege is needed.

use std::io;
use std::io::BufRead;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use ngx_bpf_record::Record;
use ngx_bpf_record::filter::Choice;
use ngx_bpf_record::filter::Filter;
use ngx_bpf_record::read;
use ngx_bpf_record::read::Records;
use ngx_bpf_record::read::Unread;
use ngx_bpf_record::statistics::Settings;
use ngx_bpf_record::statistics::Statistics;

use crate::cli::choice::ChoiceArgs;
use crate::cli::view::is_stdin;
use crate::host::signals::Signals;
use crate::host::stdin::Stdin;

/// Returns what these options choose.
fn chosen(choice: &ChoiceArgs) -> Choice {
    let min_ns = choice.min_duration.map(|min| min.as_nanos());
    let pods = choice.pod.iter();
    Choice {
        filter: Filter {
            pids: choice.pids.named(),
            statuses: choice.statuses(),
            min_ns: min_ns.map(|ns| u64::try_from(ns).unwrap_or(u64::MAX)),
            methods: choice.method.clone(),
            uri_prefix: choice.uri.clone(),
            host: choice.host.clone(),
            failed_only: choice.failed,
            headers: choice.header_values(),
            containers: choice.container.clone(),
            pods: pods
                .map(|pod| (pod.namespace.clone(), pod.name.clone()))
                .collect(),
        },
        redaction: choice.redaction.redaction(),
    }
}

/// Returns the names of files for a screen.
pub fn names(files: &[PathBuf]) -> String {
    let name = |file: &PathBuf| match is_stdin(file) {
        true => "stdin".to_owned(),
        false => file.display().to_string(),
    };
    match files {
        [file] => name(file),
        [first, rest @ ..] => format!("{} and {} more", name(first), rest.len()),
        [] => String::new(),
    }
}

/// Takes over the signals that end the reading of stdin. Where it is not read, a signal ends the process as usual.
fn signals(files: &[PathBuf]) -> Result<Signals> {
    if !files.iter().any(|file| is_stdin(file)) {
        return Ok(Signals::default());
    }
    Signals::take_over(|| {}).map(|(signals, _)| signals)
}

/// Opens a file.
fn source(file: &Path, signals: &Signals) -> io::Result<Box<dyn BufRead + Send>> {
    match is_stdin(file) {
        true => read::decompressed(Stdin::new(signals.clone())),
        false => read::open(file),
    }
}

/// The statistics of files.
pub struct Recorded {
    pub statistics: Statistics,
    /// The number of requests that the filter left out.
    pub filtered: u64,
    pub unread: Unread,
}

/// Sums up the records of files that a filter lets through.
pub fn statistics(files: &[PathBuf], choice: &ChoiceArgs, settings: &Settings) -> Result<Recorded> {
    let choice = chosen(choice);
    let empty = || (Statistics::new(settings.clone()), 0_u64);
    let mut failed = None;
    let signals = signals(files)?;
    let sources = files.iter().map(|file| {
        let opened = source(file, &signals);
        if opened.is_err() {
            failed = Some(file.clone());
        }
        opened
    });
    let folded = read::fold(sources, empty, |(statistics, filtered), mut record| {
        if choice.take(&mut record) {
            statistics.add(&record);
        } else {
            *filtered += 1;
        }
    });
    let what = failed.as_deref().map_or_else(
        || format!("failed to read {}", names(files)),
        |file| format!("failed to open {file:?}"),
    );
    let (sums, unread) = folded.context(what)?;
    let (mut statistics, mut filtered) = empty();
    for (sum, of_sum) in &sums {
        statistics.merge(sum);
        filtered += of_sum;
    }
    Ok(Recorded {
        statistics,
        filtered,
        unread,
    })
}

/// Opens files, one after another, as one source. The signals end the reading of stdin.
pub fn open(
    files: &[PathBuf],
    choice: &ChoiceArgs,
    signals: &Signals,
) -> Result<Records<impl BufRead + Send + use<>>> {
    let mut all: Box<dyn BufRead + Send> = Box::new(std::io::empty());
    for file in files {
        let source = source(file, signals).with_context(|| format!("failed to open {file:?}"))?;
        all = Box::new(all.chain(source));
    }
    Ok(Records::new(all).chosen(chosen(choice)))
}

/// Passes the records of files on that a filter lets through, in order. Returns what could not be read.
pub fn each(
    files: &[PathBuf],
    choice: &ChoiceArgs,
    mut pass_on: impl FnMut(&Record<'_>),
) -> Result<Unread> {
    let mut records = open(files, choice, &signals(files)?)?;
    let failed = || format!("failed to read {}", names(files));
    while let Some(record) = records.next_record().with_context(failed)? {
        pass_on(&record);
    }
    Ok(records.unread())
}
