// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of an nginx that is traced, for the commands that show records.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::anyhow;
use ngx_bpf_record::Record;

use crate::cli::choice::ChoiceArgs;
use crate::commands::choice;
use crate::pipeline;
use crate::pipeline::TraceSettings;
use crate::pipeline::sink::Sink;

/// What was traced.
pub struct Traced {
    /// A description of the nginx.
    pub name: String,
    /// How long it was traced.
    pub lasted: Duration,
}

/// What is known when tracing has begun.
struct Start {
    name: String,
    at: Instant,
}

/// Traces until the end, with settings that `change` adds to those of the options, and adds each record to the sum.
/// Returns false besides when tracing failed at its end, which was reported.
pub fn trace<S: Send + 'static>(
    choice: &ChoiceArgs,
    sum: S,
    add: fn(&mut S, &Record<'_>),
    change: impl FnOnce(&mut TraceSettings),
) -> Result<(S, Traced, bool)> {
    let sum = Arc::new(Mutex::new(sum));
    let started = Arc::new(Mutex::new(None));
    let (to, begun) = (Arc::clone(&sum), Arc::clone(&started));
    let view = move |record: &Record<'_>| add(&mut locked(&to), record);
    let mut settings = choice::settings(choice, Some(Sink::View(Box::new(view))));
    settings.started = Some(Box::new(move |traced| {
        *locked(&begun) = Some(Start {
            name: traced.name,
            at: Instant::now(),
        });
        Ok(())
    }));
    change(&mut settings);
    let ended = pipeline::trace(settings)?;
    let start = locked(&started).take();
    let start = start.ok_or_else(|| anyhow!("tracing has not begun"))?;
    /* Detaching takes some time, in which nothing is seen. */
    let lasted = start.at.elapsed();
    let traced = Traced {
        name: start.name,
        lasted: lasted.min(choice.duration.unwrap_or(lasted)),
    };
    let sum = Arc::into_inner(sum).ok_or_else(|| anyhow!("a thread still adds records"))?;
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((sum, traced, ended))
}

/// Locks what one thread only changes at a time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
