// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf top`: what goes on now, in a window of the last 30 seconds, on the whole terminal.
//!
//! [`Top`] is the model: one thread adds records to it, another one draws it and gives it keys; both share it in a
//! `Mutex`, which is never held while the terminal is written to. [`run()`] is the loop of the thread that draws,
//! [`replay`] that of the thread that reads records, and [`Pace`] their common clock.

use std::time::Duration;

use jiff::tz::TimeZone;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::read::Unread;
use ngx_bpf_record::statistics::GroupKey;

use crate::look::Look;
use hanging::Hanging;
use opened::Opened;
use table::Order;
use table::Selection;
use table::Table;
use views::View;
use window::Window;

pub use keys::Asked;
pub use pace::Pace;
pub use run::Wishes;
pub use run::replay;
pub use run::run;
pub use svg::svg;
pub use terminal::prepare;
pub use terminal::restore;

mod draw;
mod hanging;
mod head;
mod keys;
mod notes;
mod opened;
mod pace;
mod paint;
mod rows;
mod run;
mod svg;
mod table;
mod tables;
mod terminal;
mod views;
mod window;

#[cfg(test)]
mod tests;

/// What is asked of the screen.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is traced: `nginx 1.26.3 pid 5874  4 workers`, or the name of a file.
    pub title: String,
    /// The view to begin with. By location if it is `None`.
    pub group: Option<GroupKey>,
    /// What the terminal can do. Its width is not used: the screen has that of its frame.
    pub look: Look,
    /// Where the time of day is shown for.
    pub zone: TimeZone,
    /// Whether nginx can be asked for its requests in flight: it is traced now.
    pub has_inflight: bool,
    /// Returns the waterfall of a request, without colours; its width is that of the look.
    pub waterfall: fn(&Request<'_>, Look) -> String,
}

/// The screen: the records of the window, and what is shown of them.
#[derive(Debug)]
pub struct Top {
    settings: Settings,
    window: Window,
    /// What is shown instead of the window while the screen is frozen.
    frozen: Option<Box<Window>>,
    /// The requests that were lost since the beginning.
    lost: u64,
    unread: Unread,
    /// Whether no more records come, and why that is a failure.
    ended: Option<Option<String>>,
    view: View,
    order: Order,
    selection: Selection,
    filter: String,
    /// The filter as it was before it is typed anew.
    typing: Option<String>,
    is_help: bool,
    opened: Option<Opened>,
    hanging: Option<Hanging>,
    /// Whether something is to be drawn.
    is_changed: bool,
}

/// The order of a view that was not sorted: by rate.
const BY_RATE: Order = Order {
    column: 1,
    is_descending: true,
};

impl Top {
    /// Sets the title, which says what is shown.
    pub fn set_title(&mut self, title: String) {
        self.settings.title = title;
        self.is_changed = true;
    }

    /// Creates a screen without records.
    pub fn new(settings: Settings) -> Self {
        let keys = views::keys(settings.group.as_ref());
        Self {
            view: views::first(settings.group.as_ref(), &keys),
            window: Window::new(keys),
            settings,
            frozen: None,
            lost: 0,
            unread: Unread::default(),
            ended: None,
            order: BY_RATE,
            selection: Selection::default(),
            filter: String::new(),
            typing: None,
            is_help: false,
            opened: None,
            hanging: None,
            is_changed: true,
        }
    }

    /// Adds a record that was written at this time, which counts from 1970. The window moves to it.
    pub fn record(&mut self, record: &Record<'_>, at: Duration) {
        if let Record::Lost(lost) = record {
            self.lost = self.lost.saturating_add(lost.count);
        }
        self.window.add(record, at);
        self.is_changed |= self.frozen.is_none();
    }

    /// Returns the number of requests that were lost, for whatever cause.
    fn lost(&self) -> u64 {
        self.lost.saturating_add(self.unread.lost)
    }

    /// Sets what could not be read so far.
    pub fn set_unread(&mut self, unread: Unread) {
        self.is_changed |= unread != self.unread;
        self.unread = unread;
    }

    /// Moves the window to this time, which counts from 1970. After [`Top::end`] it stands still.
    pub fn advance(&mut self, now: Duration) {
        if self.ended.is_some() {
            return;
        }
        let before = self.window.now().as_secs();
        self.window.advance(now);
        self.is_changed |= self.window.now().as_secs() != before;
    }

    /// Says that no more records come. With a failure, that is why.
    pub fn end(&mut self, failure: Option<String>) {
        self.ended = Some(failure);
        self.is_changed = true;
    }

    /// Returns whether the screen differs from the one that was drawn last, and regards it as drawn.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns whether the screen is frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Freezes the screen, or shows what has come meanwhile. Records are counted all the same.
    fn freeze(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(Box::new(self.window.clone())),
        };
    }

    /// Returns the window that is shown.
    fn shown(&self) -> &Window {
        self.frozen.as_deref().unwrap_or(&self.window)
    }

    /// Shows another view, sorted and selected anew; the filter stays.
    fn show(&mut self, view: View) {
        self.view = view;
        self.order = BY_RATE;
        self.selection = Selection::default();
    }

    /// Returns the table of the view, with its window whole: every view counts from the beginning.
    fn table(&self) -> Table {
        let window = self.shown();
        let seconds = window.seconds();
        let (columns, rows): (&'static [table::Column], _) = match self.view {
            View::Group(key) => (
                &tables::GROUPS,
                tables::groups(&window.groups(key), seconds),
            ),
            View::Upstreams => (
                &tables::UPSTREAMS,
                tables::upstreams(&window.peers(), seconds),
            ),
            View::Workers => (
                &tables::WORKERS,
                tables::workers(&window.workers(), seconds),
            ),
        };
        Table {
            columns,
            rows,
            order: self.order,
        }
    }

    /// Returns the name of the first column.
    fn heading(&self) -> String {
        match self.view {
            View::Group(key) => match self.shown().keys().get(key) {
                Some(key) => key.to_string().to_uppercase(),
                None => String::new(),
            },
            View::Upstreams => "UPSTREAM / SERVER".to_owned(),
            View::Workers => "WORKER".to_owned(),
        }
    }
}
