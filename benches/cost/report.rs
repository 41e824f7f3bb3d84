// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page and the chart that a run writes, for docs/bench.md and docs/bench.svg.

use std::fmt::Write as _;

use crate::chart::Bars;
use crate::chart::svg;
use crate::interval::Interval;
use crate::latency::Latency;
use crate::machine::facts;
use crate::row::Effect;
use crate::row::Measured;
use crate::run::Run;

/// How to read the numbers.
const READING: &str = "\
`nginx` is the CPU time of nginx's worker, from the scheduler (`schedstat`). `machine` is all time in which the CPUs were
busy, from `/proc/stat`: for nginx, its upstream, the tool, softirqs, the load generator, and whatever else ran. The
load generator's share is on both sides of a ratio, which makes the ratio smaller; in what is added it cancels out.
`machine` is counted in ticks of some milliseconds, so that its intervals are wider.

`µs` is a request with nothing on: the median of all rounds. `×` and `+ µs` are the medians of the ratios and of the
differences of the two measurements of each round, with their 95 % intervals. The ends of an interval are two of the sorted
values (as in the sign test), so that nothing is assumed about the noise but that rounds are independent. A row ends
as soon as its interval is narrow enough, so that the interval contains the true value somewhat less often than in
95 % of the cases.

nginx has one worker. There are 16 connections, unless the row says another number. In a row that is pinned the worker
has one CPU, and the load generator, the upstream and the tool have another one; in all other rows the
kernel chooses.
";

/// How latency is measured.
const LATENCY: &str = "\
One client sends 2,000 requests a second on one connection. A request counts from the moment at which it was sent or, if
the answer before it came too late, should have been sent. All numbers are µs: the medians of all rounds without
and with tracing, and the median of the differences, with its 95 % interval.
";

/// Returns the chart.
pub fn chart(run: &Run) -> String {
    let rows = run.rows.iter().map(|row| Bars {
        name: &row.name,
        worker: row.worker.ratio,
        machine: row.machine.ratio,
    });
    svg(&Vec::from_iter(rows))
}

/// Returns the page.
pub fn page(run: &Run) -> String {
    let plan = &run.plan;
    let mut page = match plan.is_whole() {
        true => "<!-- From a whole run (make bench). -->\n# The cost of tracing\n\n".to_owned(),
        false => "<!-- From a quick run, or a part of one: only its form counts, not its numbers. -->\n\
             # The cost of tracing\n\n\
             **This page is from a quick run or from some of the rows. `make bench` replaces it.**\n\n"
            .to_owned(),
    };
    page += "`make bench` writes this page and its chart. [overhead.md](overhead.md) says where the time goes.\n\n";
    page += "| | |\n| --- | --- |\n";
    for (name, value) in facts() {
        writeln!(page, "| {name} | {value} |").unwrap();
    }
    write!(
        page,
        "\n![Ratios of CPU time with their intervals, as in the table](bench.svg)\n\n## CPU time of a request\n\n\
         Each round measures {} s without and {} s with what is on, one after the other; every second round does so in the \
         other order.\nA row ends when the interval of nginx's ratio is no wider than ± {} % of the ratio, after {} to {} \
         rounds.\nWith `!` it is wider.\n\n{READING}\n",
        plan.seconds,
        plan.seconds,
        plan.margin * 100.0,
        plan.rounds.start(),
        plan.rounds.end(),
    )
    .unwrap();
    page += &table(&run.rows);
    for note in &run.notes {
        write!(page, "\n{note}\n").unwrap();
    }
    if !run.latencies.is_empty() {
        write!(page, "\n## Latency\n\n{LATENCY}\n").unwrap();
        page += &latencies(&run.latencies);
    }
    if !run.skipped.is_empty() {
        page += "\n## Not measured\n\n";
        for reason in &run.skipped {
            writeln!(page, "- {reason}").unwrap();
        }
    }
    page
}

/// Returns the table of CPU time.
fn table(rows: &[Measured]) -> String {
    let has_before = rows.iter().any(|row| row.worker.of_before.is_some());
    let before = if has_before {
        " × of the build before |"
    } else {
        ""
    };
    let mut head = "| what is on | rounds |".to_owned();
    for clock in ["nginx", "machine"] {
        write!(head, " {clock}: µs | × | + µs |{before}").unwrap();
    }
    let mut table = format!(
        "{head}\n|{}\n",
        " --- |".repeat(head.matches('|').count() - 1)
    );
    for row in rows {
        let mark = if row.is_certain { "" } else { " !" };
        write!(table, "| {} | {}{mark} |", row.name, row.rounds).unwrap();
        for effect in [&row.worker, &row.machine] {
            table += &cells(effect, has_before);
        }
        table.push('\n');
    }
    table
}

fn cells(effect: &Effect, has_before: bool) -> String {
    let mut cells = format!(
        " {:.2} | {} | {} |",
        effect.off_us,
        cell(&effect.ratio, 3),
        cell(&effect.added_us, 2)
    );
    if has_before {
        let ratio = effect.of_before.as_ref();
        let ratio = ratio.map_or(String::new(), |ratio| cell(ratio, 3));
        write!(cells, " {ratio} |").unwrap();
    }
    cells
}

fn cell(interval: &Interval, digits: usize) -> String {
    let Interval { low, median, high } = interval;
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}

/// Returns the table of latencies.
fn latencies(latencies: &[Latency]) -> String {
    let mut table = "| requests | rounds | percentile | without | with | added |\n".to_owned();
    table += "| --- | --- | --- | --- | --- | --- |\n";
    for latency in latencies {
        for percentile in &latency.percentiles {
            writeln!(
                table,
                "| {} | {} | {} | {:.1} | {:.1} | {} |",
                latency.name,
                latency.rounds,
                percentile.name,
                percentile.off_us,
                percentile.on_us,
                cell(&percentile.added_us, 1)
            )
            .unwrap();
        }
    }
    table
}
