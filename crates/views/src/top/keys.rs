// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keys do.

use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::crossterm::event::KeyModifiers;

use super::Top;
use super::opened::Depth;
use super::table::Order;
use super::views;

/// The most characters of a filter.
const FILTER_MAX: usize = 200;

/// The rows that a page has.
const PAGE: isize = 10;

/// What a key asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing but to draw what has changed.
    Nothing,
    /// To leave.
    Leave,
    /// To give the terminal back until the process is continued.
    Suspend,
    /// To draw everything anew.
    Redraw,
    /// To read the requests in flight.
    Inflight,
}

impl Top {
    /// Does what a key asks, and returns what is left for the loop to do.
    pub fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        self.is_changed = true;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Asked::Leave,
                KeyCode::Char('z') => Asked::Suspend,
                KeyCode::Char('l') => Asked::Redraw,
                _ => Asked::Nothing,
            };
        }
        if self.typing.is_some() {
            self.type_filter(key.code);
            return Asked::Nothing;
        }
        if self.is_help {
            self.is_help = false;
            return match key.code {
                KeyCode::Char('q') => Asked::Leave,
                _ => Asked::Nothing,
            };
        }
        if self.hanging.is_some() {
            return self.hanging_key(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Asked::Leave,
            KeyCode::Esc | KeyCode::Backspace => return self.back(key.code == KeyCode::Esc),
            KeyCode::Char('i') if self.settings.has_inflight => {
                self.ask_inflight();
                return Asked::Inflight;
            }
            KeyCode::Char('?') => self.is_help = true,
            KeyCode::Char('p') => self.freeze(),
            KeyCode::Enter => self.enter(),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::PageUp => self.page(-PAGE),
            KeyCode::PageDown | KeyCode::Char(' ') => self.page(PAGE),
            KeyCode::Char('s') => self.sort(None),
            KeyCode::Char(digit @ '1'..='9') => self.sort(digit.to_digit(10)),
            code => self.view_key(code),
        }
        Asked::Nothing
    }

    /// Does what a key asks while the requests in flight are shown.
    fn hanging_key(&mut self, code: KeyCode) -> Asked {
        let by = match code {
            KeyCode::Char('q') => return Asked::Leave,
            KeyCode::Char('i') => return Asked::Inflight,
            KeyCode::Char('?') => {
                self.is_help = true;
                0
            }
            KeyCode::Esc | KeyCode::Backspace => {
                self.hanging = None;
                0
            }
            KeyCode::Up | KeyCode::Char('k') => -1,
            KeyCode::Down | KeyCode::Char('j') => 1,
            KeyCode::PageUp => -PAGE,
            KeyCode::PageDown | KeyCode::Char(' ') => PAGE,
            KeyCode::Home => isize::MIN,
            KeyCode::End => isize::MAX,
            _ => 0,
        };
        if let Some(hanging) = &mut self.hanging {
            hanging.move_by(by);
        }
        Asked::Nothing
    }

    /// Does what a key asks that is of the views only.
    fn view_key(&mut self, code: KeyCode) {
        if self.opened.is_some() {
            return;
        }
        let views = views::all(self.shown().keys());
        match code {
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Tab => {
                let place = views.iter().position(|(_, _, view)| *view == self.view);
                let next = place.map_or(0, |place| (place + 1) % views.len());
                self.show(views[next].2);
            }
            KeyCode::Char(letter) => {
                if let Some((_, _, view)) = views.iter().find(|(key, _, _)| *key == letter) {
                    self.show(*view);
                }
            }
            _ => {}
        }
    }

    /// Changes the filter that is typed.
    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = None,
            KeyCode::Esc => self.filter = self.typing.take().unwrap_or_default(),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(typed) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(typed);
            }
            _ => {}
        }
    }

    /// Goes back by one step. At the first one, Esc first takes the filter away, and then leaves.
    fn back(&mut self, is_escape: bool) -> Asked {
        if let Some(opened) = &mut self.opened {
            if !opened.back() {
                self.opened = None;
            }
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else if is_escape {
            return Asked::Leave;
        }
        Asked::Nothing
    }

    /// Opens what is selected.
    fn enter(&mut self) {
        match &mut self.opened {
            Some(opened) => {
                opened.open();
            }
            None => self.open(),
        }
    }

    /// Selects the row this number of rows further down; up if it is negative.
    fn move_by(&mut self, by: isize) {
        if let Some(opened) = &mut self.opened {
            opened.move_by(by);
            return;
        }
        let table = self.table();
        let mut selection = self.selection.clone();
        selection.move_by(&table.shown(&self.filter), by);
        self.selection = selection;
    }

    /// Moves by a page: of rows, or of a text.
    fn page(&mut self, by: isize) {
        match &mut self.opened {
            Some(opened) if opened.depth != Depth::Requests => {
                opened.scroll = opened.scroll.saturating_add_signed(by);
            }
            _ => self.move_by(by),
        }
    }

    /// Sorts by a column, which counts from 1; the same again: reversed. Without one, by the next column.
    fn sort(&mut self, digit: Option<u32>) {
        let columns = match &self.opened {
            Some(opened) => opened.table().columns,
            None => self.table().columns,
        };
        let order = match &mut self.opened {
            Some(opened) => &mut opened.order,
            None => &mut self.order,
        };
        let column = match digit {
            Some(digit) => digit as usize - 1,
            None => (order.column + 1) % columns.len(),
        };
        let Some(wanted) = columns.get(column) else {
            return;
        };
        let is_descending = if order.column == column {
            !order.is_descending
        } else {
            !wanted.is_left || wanted.name == "WHERE"
        };
        *order = Order {
            column,
            is_descending,
        };
    }
}
