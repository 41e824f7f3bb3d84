// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of the bench: what it measures, and what it has measured so far.

use std::fs;

use crate::common::sources::project;
use crate::latency::Latency;
use crate::report;
use crate::rounds::Plan;
use crate::row::Measured;
use crate::row::Row;

/// A run.
pub struct Run {
    pub plan: Plan,
    pub rows: Vec<Measured>,
    pub latencies: Vec<Latency>,
    /// Sentences about numbers that are in no row.
    pub notes: Vec<String>,
    /// What could not be measured, and why.
    pub skipped: Vec<String>,
}

impl Run {
    /// Starts a run as the environment asks for it.
    pub fn start() -> Self {
        let plan = Plan::of_environment();
        println!(
            "{} s, alternating; a row ends after {} to {} rounds, or when half of the interval of nginx's ratio is \
             at most {} % of it (otherwise !)",
            plan.seconds,
            plan.rounds.start(),
            plan.rounds.end(),
            plan.margin * 100.0
        );
        println!(
            "CPU of a request, of nginx's worker | of the machine: us without, ratio [95 %], added us"
        );
        Self {
            plan,
            rows: Vec::new(),
            latencies: Vec::new(),
            notes: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Returns whether this run measures what has this name.
    pub fn wants(&self, name: &str, is_quick: bool) -> bool {
        match &self.plan.only {
            Some(only) => name.contains(only.as_str()),
            None => is_quick || !self.plan.is_quick,
        }
    }

    /// Measures a row if this run is to, and prints it.
    pub fn measure(&mut self, row: &Row<'_>) {
        if !self.wants(&row.name, row.is_quick) {
            return;
        }
        match row.measure(&self.plan) {
            Ok(measured) => {
                println!("{measured}");
                self.rows.push(measured);
            }
            Err(reason) => self.skip(&row.name, &reason),
        }
    }

    /// Keeps a latency, and prints it.
    pub fn latency(&mut self, latency: Latency) {
        println!("{latency}");
        self.latencies.push(latency);
    }

    /// Keeps a sentence, and prints it.
    pub fn note(&mut self, sentence: String) {
        println!("{sentence}");
        self.notes.push(sentence);
    }

    /// Keeps why something is not measured, if it is to be, and prints that.
    pub fn skip(&mut self, name: &str, reason: &str) {
        if self.wants(name, false) {
            println!("SKIP this machine: {name}: {reason}");
            self.skipped.push(format!("{name}: {reason}"));
        }
    }

    /// Writes the page and its chart to target/bench. Those of a whole run have names of their own, so that `make
    /// bench` copies no others to docs/.
    pub fn write(&self) {
        let name = match () {
            () if self.plan.is_whole() => "bench",
            () if self.plan.only.is_some() => "part",
            () => "quick",
        };
        let folder = project().join("target/bench");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name).with_extension("md"), report::page(self)).unwrap();
        fs::write(folder.join(name).with_extension("svg"), report::chart(self)).unwrap();
        println!("\nwritten: {}/{name}.md and .svg", folder.display());
    }
}
