// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf top`: a screen of what happens now, or of recorded requests as they came.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use jiff::tz::TimeZone;
use ngx_bpf_record::Record;
use ngx_bpf_views::top::Pace;
use ngx_bpf_views::top::Settings;
use ngx_bpf_views::top::Top;
use ngx_bpf_views::top::Wishes;
use ngx_bpf_views::top::prepare;
use ngx_bpf_views::top::replay;
use ngx_bpf_views::top::run;
use ngx_bpf_views::waterfall;

use crate::cli::view::TopArgs;
use crate::cli::view::is_stdin;
use crate::commands::choice;
use crate::commands::recorded;
use crate::host::privileges;
use crate::host::signals::Signals;
use crate::host::stderr;
use crate::host::terminal;
use crate::pipeline;
use crate::pipeline::sink::Sink;

/// How long the screen has to end, and how often it is looked whether it has.
const GRACE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// The thread of the screen, and what asks it to end.
type Shown = (JoinHandle<Result<()>>, Signals);

/// The screen, and its clock.
#[derive(Clone)]
struct Screen {
    top: Arc<Mutex<Top>>,
    pace: Arc<Pace>,
}

/// Shows the screen until the user leaves it. Returns false when tracing failed at its end, which was reported.
pub fn top(options: &TopArgs) -> Result<bool> {
    ensure!(
        terminal::is_stdout(),
        "stdout is no terminal: ngx-bpf summary shows the same numbers once, and needs none"
    );
    if options.view.files.is_empty() {
        live(options)
    } else {
        recorded(options).map(|()| true)
    }
}

/// Returns an empty screen.
fn screen(options: &TopArgs, title: String, pace: Pace) -> Screen {
    let top = Top::new(Settings {
        title,
        group: Some(options.group.clone()),
        look: terminal::look(options.view.ascii),
        zone: TimeZone::system(),
        has_inflight: options.view.files.is_empty(),
        waterfall: waterfall::terminal,
    });
    Screen {
        top: Arc::new(Mutex::new(top)),
        pace: Arc::new(pace),
    }
}

/// Shows recorded requests, at the pace at which they came.
fn recorded(options: &TopArgs) -> Result<()> {
    let files = &options.view.files;
    let (signals, _stopped) = Signals::take_over(terminal::restore)?;
    let mut records = recorded::open(files, &options.view.choice, &signals)?;
    /* What comes through a pipe comes now. */
    let is_piped = files.iter().any(|file| is_stdin(file));
    let pace = match is_piped {
        true => Pace::live(),
        false => Pace::replay(options.speed),
    };
    let screen = screen(options, recorded::names(files), pace);
    let reader = screen.clone();
    let reader = thread::Builder::new()
        .name("replay".to_owned())
        .spawn(move || replay(&mut records, &reader.top, &reader.pace))
        .context("failed to start a thread")?;
    let (shown, asked) = (screen.clone(), signals.clone());
    let shown = thread::Builder::new()
        .name("screen".to_owned())
        .spawn(move || {
            let wishes = Wishes {
                is_end_asked: &|| asked.is_end_asked(),
                /* A file has no requests in flight. */
                read_inflight: &|| {},
            };
            Ok(run(&shown.top, &shown.pace, &wishes)?)
        })
        .context("failed to start a thread")?;
    finish(shown, &signals)?;
    /* One that waits for a pipe ends with the process. */
    if reader.is_finished() {
        reader.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

/// Traces, and shows what comes.
fn live(options: &TopArgs) -> Result<bool> {
    let screen = screen(options, String::new(), Pace::live());
    let shown: Arc<Mutex<Option<Shown>>> = Arc::default();
    let (to, pace) = (Arc::clone(&screen.top), Arc::clone(&screen.pace));
    let view = move |record: &Record<'_>| {
        let now = pace.now().unwrap_or_default();
        to.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(record, now);
    };
    let mut settings = choice::settings(&options.view.choice, Some(Sink::View(Box::new(view))));
    choice::ask_for(&mut settings, &options.group);
    let (begun, of_start) = (screen.clone(), Arc::clone(&shown));
    let inflight_to = Arc::clone(&screen.top);
    settings.inflight = Some(Arc::new(move |requests| {
        let mut top = inflight_to.lock().unwrap_or_else(PoisonError::into_inner);
        top.set_inflight(requests.map_err(|error| format!("{error:#}")));
    }));
    settings.started = Some(Box::new(move |traced| {
        let thread = show(begun, traced.name, traced.signals.clone())?;
        *of_start.lock().unwrap_or_else(PoisonError::into_inner) = Some((thread, traced.signals));
        Ok(())
    }));
    /* Later this process can open nothing. */
    prepare().context("failed to read keys from the terminal")?;
    let ended = pipeline::trace(settings);
    let top = &screen.top;
    top.lock().unwrap_or_else(PoisonError::into_inner).end(None);
    let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((thread, signals)) = shown {
        finish(thread, &signals)?;
    }
    ended
}

/// Waits until the screen has ended. When the end is asked for it has a second: a terminal that has gone may never let
/// it go.
fn finish(thread: JoinHandle<Result<()>>, signals: &Signals) -> Result<()> {
    let mut asked = None;
    while !thread.is_finished() {
        if signals.is_end_asked() {
            let asked = *asked.get_or_insert_with(Instant::now);
            if asked.elapsed() > GRACE {
                terminal::restore();
                return Ok(());
            }
        }
        thread::park_timeout(LOOK);
    }
    let shown = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
    shown.context("failed to show the screen")
}

/// Starts the thread of the screen, without capabilities. When it ends, the end of tracing is asked for.
fn show(screen: Screen, name: String, signals: Signals) -> Result<JoinHandle<Result<()>>> {
    let thread = thread::Builder::new().name("screen".to_owned());
    let thread = thread.spawn(move || {
        privileges::drop_all();
        {
            let mut top = screen.top.lock().unwrap_or_else(PoisonError::into_inner);
            top.set_title(name);
        }
        stderr::hold();
        let wishes = Wishes {
            is_end_asked: &|| signals.is_end_asked(),
            read_inflight: &|| signals.ask_for_inflight(),
        };
        let shown = run(&screen.top, &screen.pace, &wishes);
        stderr::release();
        signals.end();
        shown.map_err(anyhow::Error::from)
    });
    thread.context("failed to start a thread")
}
