// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loops of the two threads: one draws the screen and reads keys, the other one reads records.

use std::io;
use std::io::BufRead;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;

use ngx_bpf_record::read::Records;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;

use super::Top;
use super::keys::Asked;
use super::pace::Pace;
use super::pace::written;
use super::terminal::Terminal;
use super::terminal::wait_for_input;

/// The least time between two frames.
const FRAME: Duration = Duration::from_millis(100);

/// Returns the screen. Fails when another thread panicked while it had it.
fn lock(top: &Mutex<Top>) -> io::Result<MutexGuard<'_, Top>> {
    let locked = top.lock();
    locked.map_err(|_| io::Error::other("the thread that reads records panicked"))
}

/// What the screen asks of its caller.
pub struct Wishes<'a> {
    /// Returns whether the caller wants the screen to end.
    pub is_end_asked: &'a dyn Fn() -> bool,
    /// Makes the caller read the requests in flight, for [`Top::set_inflight`].
    pub read_inflight: &'a dyn Fn(),
}

/// Shows the screen until a key asks to leave, or the caller does: it looks at `is_end_asked` at least ten times a
/// second. Draws ten times a second at most, and only what has changed. On return the terminal is as before, and the
/// pace has ended, so that a replay does as well.
///
/// # Errors
///
/// Fails when stdout is no terminal, or has gone, and when another thread has panicked.
pub fn run(top: &Mutex<Top>, pace: &Pace, wishes: &Wishes<'_>) -> io::Result<()> {
    let shown = show(top, pace, wishes);
    pace.end();
    shown
}

/// Shows the screen until the end is asked.
fn show(top: &Mutex<Top>, pace: &Pace, wishes: &Wishes<'_>) -> io::Result<()> {
    let is_end_asked = wishes.is_end_asked;
    let mut terminal = Terminal::enter()?;
    let mut next = Instant::now();
    while !is_end_asked() {
        terminal.check()?;
        if Instant::now() >= next {
            let is_changed = {
                let mut top = lock(top)?;
                if let Some(now) = pace.now() {
                    top.advance(now);
                }
                top.take_changed()
            };
            if is_changed {
                draw(&mut terminal, top)?;
            }
            next = Instant::now() + FRAME;
        }
        wait_for_input(next.saturating_duration_since(Instant::now()))?;
        while event::poll(Duration::ZERO)? {
            let asked = handle(&event::read()?, top, pace)?;
            match asked {
                Asked::Nothing => {}
                Asked::Leave => return Ok(()),
                Asked::Suspend => terminal.suspend()?,
                Asked::Redraw => terminal.renew()?,
                Asked::Inflight => (wishes.read_inflight)(),
            }
            if is_end_asked() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Draws a frame. The screen is locked only until its cells are known, and not while they are written.
fn draw(terminal: &mut Terminal, top: &Mutex<Top>) -> io::Result<()> {
    let mut drawn = Ok(());
    terminal.draw(|frame| drawn = lock(top).map(|top| top.draw(frame)))?;
    drawn
}

/// Does what an event asks.
fn handle(event: &Event, top: &Mutex<Top>, pace: &Pace) -> io::Result<Asked> {
    let mut top = lock(top)?;
    match event {
        Event::Key(key) => {
            let was_frozen = top.is_frozen();
            let asked = top.key(*key);
            if top.is_frozen() != was_frozen {
                pace.freeze(!was_frozen);
            }
            Ok(asked)
        }
        _ => {
            /* The size: the next frame has it. */
            top.is_changed = true;
            Ok(Asked::Nothing)
        }
    }
}

/// Adds the records of a source at a pace, until its end, or that of the pace. What can't be read is shown.
///
/// # Errors
///
/// Fails when another thread has panicked. That the source can't be read is shown, and no error.
pub fn replay<R: BufRead>(
    records: &mut Records<R>,
    top: &Mutex<Top>,
    pace: &Pace,
) -> io::Result<()> {
    loop {
        let record = match records.next_record() {
            Ok(Some(record)) => record,
            Ok(None) => break lock(top)?.end(None),
            Err(error) => break lock(top)?.end(Some(error.to_string())),
        };
        let Some(at) = pace.wait_for(written(&record)) else {
            break;
        };
        let mut top = lock(top)?;
        top.record(&record, at);
        top.set_unread(records.unread());
    }
    lock(top)?.set_unread(records.unread());
    Ok(())
}
