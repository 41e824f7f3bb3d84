// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to the operator about the output, losses and the end of tracing.

use std::sync::atomic::Ordering;

use ngx_bpf_record::values::Cause;

use crate::attach::object::RING_BYTES;
use crate::counts::ConnectionCounts;
use crate::counts::Counts;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::overhead::Overhead;

/// Warns that the output is a FIFO without a reader.
pub fn unread(messages: Messages) {
    messages.print(
        Verbosity::Normal,
        "no one reads the output, a FIFO: records wait until a reader opens it",
    );
}

/// Reports that the output was opened again.
pub fn reopened(messages: Messages) {
    messages.print(Verbosity::Verbose, "reopened the output");
}

/// Warns that new processes are not traced.
pub fn untraced(messages: Messages, processes: u64) {
    messages.print(
        Verbosity::Normal,
        format_args!("{processes} new processes are not traced: no memory for them"),
    );
}

/// Reports the overhead of tracing so far. `waiting_max` is the most bytes that a ring buffer held.
pub fn overhead(messages: Messages, overhead: &Overhead, waiting_max: u64) {
    for (program, runs) in &overhead.programs {
        let each = runs.time_ns.checked_div(runs.hits).unwrap_or_default();
        messages.print(
            Verbosity::Normal,
            format_args!("{program}: {} hits, {each} ns each", runs.hits),
        );
    }
    messages.print(
        Verbosity::Normal,
        format_args!(
            "this process: {:.3} s of cpu, {:.1} MiB resident; ring buffer: at most {} KiB of {} KiB \
             used",
            overhead.process.cpu.as_secs_f64(),
            overhead.process.resident as f64 / f64::from(1 << 20),
            waiting_max >> 10,
            RING_BYTES >> 10,
        ),
    );
}

/// Reports what was only counted: of each, the first one was reported when it happened.
pub fn only_counted(messages: Messages, ledger: &Ledger) {
    for (count, what) in [
        (&ledger.bad_records, "records could not be decoded"),
        (
            &ledger.bad_notices,
            "records that are not of requests could not be decoded",
        ),
        (&ledger.nameless, "records lack the keys of their container"),
        (
            &ledger.forgotten_workers,
            "workers had their places forgotten",
        ),
    ] {
        let count = count.load(Ordering::Relaxed);
        if count > 1 {
            messages.print_last(Verbosity::Normal, format_args!("{count} {what}"));
        }
    }
}

/// Reports the first loss of a cause, where the output has no lines for losses.
pub fn lost(messages: Messages, cause: Cause) {
    let where_not = match cause {
        Cause::Otlp => "the receiver has not taken them",
        _ => "they have no spans",
    };
    messages.print(
        Verbosity::Normal,
        format_args!(
            "requests were lost ({cause}): {where_not}; the last message has their number"
        ),
    );
}

/// Returns the end of a noun of which there are so many.
fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Reports how many records of blocked workers were lost, if any were.
pub fn blocked_lost(messages: Messages, count: u64) {
    if count > 0 {
        let (plural, were) = (plural(count), if count == 1 { "was" } else { "were" });
        messages.print_last(
            Verbosity::Normal,
            format_args!("{count} record{plural} of blocked workers {were} lost"),
        );
    }
}

/// Reports that the output was still failing at the end.
pub fn unwritten(messages: Messages, records: u64) {
    let plural = plural(records);
    messages.print_last(
        Verbosity::Quiet,
        format_args!("the output failed to the end: {records} record{plural} not written"),
    );
}

/// Reports that the receiver of `--otlp` was still failing at the end, and how many records are known to be lost by it.
pub fn unsent(messages: Messages, records: u64) {
    let plural = plural(records);
    messages.print_last(
        Verbosity::Quiet,
        format_args!(
            "the receiver of --otlp failed to the end: {records} record{plural} not taken"
        ),
    );
}

/// Reports the counts of connections at the end: connections seen = written + lost.
pub fn connections(messages: Messages, counts: &ConnectionCounts) {
    let ConnectionCounts {
        seen,
        written,
        lost,
    } = *counts;
    let plural = plural(written);
    messages.print_last(
        Verbosity::Normal,
        format_args!("{written} connection{plural}, {lost} lost ({seen} seen)"),
    );
}

/// Reports the counts at the end: requests seen = written + lost + filtered.
pub fn finished(messages: Messages, written: u64, counts: &Counts) {
    let (lost, seen, filtered) = (counts.lost(), counts.seen, counts.filtered);
    let plural = plural(written);
    messages.print_last(
        Verbosity::Normal,
        format_args!("{written} request{plural}, {lost} lost ({seen} seen, {filtered} filtered)"),
    );
}

/// Reports the end by a second signal, and the counts so far. Requests that are not written yet are
/// lost.
pub fn ended_at_once(messages: Messages, written: u64, counts: &Counts) {
    let Counts { seen, filtered, .. } = *counts;
    let seen = seen.max(written + filtered);
    let lost = seen - written - filtered;
    let plural = plural(written);
    messages.print_last(
        Verbosity::Quiet,
        format_args!(
            "ended at once by a second signal: {written} request{plural}, {lost} lost ({seen} seen, \
             {filtered} filtered)"
        ),
    );
}
