// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests in flight, which stand on the screen instead of a view when they are asked for.

use ngx_bpf_record::Inflight;

use super::Top;
use super::paint::Canvas;
use crate::cell;
use crate::inflight;
use crate::look::Look;

/// The requests in flight, and how far they are scrolled.
#[derive(Debug, Default)]
pub struct Hanging {
    /// `None` until they were read. An error says why they were not.
    requests: Option<Result<Vec<Inflight<'static>>, String>>,
    scroll: usize,
}

impl Hanging {
    /// Draws them.
    pub fn paint(&self, canvas: &mut Canvas<'_>) {
        let look = Look {
            width: canvas.width(),
            colour: false,
            ..canvas.look()
        };
        let text = match &self.requests {
            None => "nginx's memory is being read".to_owned(),
            Some(Ok(requests)) => inflight::terminal(requests, look),
            Some(Err(why)) => cell::paragraph("", why, look),
        };
        let lines: Vec<&str> = text.lines().collect();
        let first = self.scroll.min(lines.len().saturating_sub(canvas.left()));
        lines[first..].iter().for_each(|line| canvas.text(line));
    }

    /// Scrolls by lines.
    pub fn move_by(&mut self, by: isize) {
        self.scroll = self.scroll.saturating_add_signed(by).min(inflight::LINES);
    }
}

impl Top {
    /// Shows that the requests in flight are being read; the last ones stay until then.
    pub(super) fn ask_inflight(&mut self) {
        self.hanging.get_or_insert_default();
    }

    /// Shows requests in flight, if they are still asked for.
    pub fn set_inflight(&mut self, requests: Result<Vec<Inflight<'static>>, String>) {
        if let Some(hanging) = &mut self.hanging {
            hanging.requests = Some(requests);
            self.is_changed = true;
        }
    }
}
