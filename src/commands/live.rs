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

/// Traces until the end, and adds each record to the sum. Returns false besides when tracing failed at its end, which was
/// reported.
pub fn trace<S: Send + 'static>(
    choice: &ChoiceArgs,
    sum: S,
    add: fn(&mut S, &Record<'_>),
) -> Result<(S, Traced, bool)> {
    trace_with(choice, sum, add, |_| {})
}

/// The same with other settings than the options give.
pub fn trace_with<S: Send + 'static>(
    choice: &ChoiceArgs,
    sum: S,
    add: fn(&mut S, &Record<'_>),
    change: impl FnOnce(&mut TraceSettings),
) -> Result<(S, Traced, bool)> {
    let sum = Arc::new(Mutex::new(sum));
    let started = Arc::new(Mutex::new((String::new(), Instant::now())));
    let (to, begun) = (Arc::clone(&sum), Arc::clone(&started));
    let view = move |record: &Record<'_>| add(&mut locked(&to), record);
    let mut settings = choice::settings(choice, Sink::View(Box::new(view)));
    settings.started = Some(Box::new(move |name, _| {
        *locked(&begun) = (name, Instant::now());
        Ok(())
    }));
    change(&mut settings);
    let ended = pipeline::trace(settings)?;
    let (name, begun) = locked(&started).clone();
    /* Detaching takes some time, in which nothing is seen. */
    let lasted = begun.elapsed();
    let lasted = lasted.min(choice.duration.unwrap_or(lasted));
    let sum = Arc::into_inner(sum).ok_or_else(|| anyhow!("a thread still adds records"))?;
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((sum, Traced { name, lasted }, ended))
}

/// Locks what one thread only changes at a time.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
