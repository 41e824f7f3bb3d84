// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is traced, in a few words, for the first line of a screen.

use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;

/// Describes the nginx that these programs are: one by its name and pid, more by their number.
pub fn of<'p>(programs: impl Iterator<Item = &'p Program>) -> String {
    let mut nginx = Vec::new();
    let mut workers = 0;
    for program in programs {
        let name = program.identity.build.name().to_string();
        for process in &program.processes {
            nginx.push(format!("{name}, pid {}", process.pid));
            workers += NginxProcess::serving(process).len();
        }
    }
    let plural = if workers == 1 { "" } else { "s" };
    match nginx.as_slice() {
        [] => "no nginx yet".to_owned(),
        [one] => format!("{one}, {workers} worker{plural}"),
        several => format!("{} nginx, {workers} workers", several.len()),
    }
}
