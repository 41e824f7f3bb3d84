// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a row was opened to: its requests, one waterfall, its JSON.

use std::cmp::Reverse;
use std::collections::HashSet;

use ngx_bpf_record::Record;
use ngx_bpf_record::Request;

use super::Top;
use super::table::Order;
use super::table::Row;
use super::table::Selection;
use super::table::Table;
use super::tables;
use super::tables::OTHER;
use super::views::View;
use super::window::NONE;
use crate::look::Look;

/// The most requests of a row that are shown.
const REQUESTS_MAX: usize = 500;

/// From how many bytes on the name of a row may be the begin of a longer one.
const LONG_NAME: usize = 250;

/// The order of requests that were not sorted: the slowest first.
const SLOWEST_FIRST: Order = Order {
    column: 0,
    is_descending: true,
};

/// How far a row is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its requests.
    Requests,
    /// One of them as a waterfall.
    Waterfall,
    /// One of them as JSON.
    Json,
}

/// A row that was opened. Its requests are those that were there when it was opened: they stand still.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it is: the name of the row.
    pub name: String,
    /// Its requests that are kept: the latest and the slowest.
    requests: Vec<Request<'static>>,
    /// Their order.
    pub order: Order,
    /// Which of them is selected.
    pub selection: Selection,
    /// How far it is opened.
    pub depth: Depth,
    /// The first line that is shown of a waterfall, or of JSON.
    pub scroll: usize,
}

impl Opened {
    /// Returns the table of the requests.
    pub fn table(&self) -> Table {
        Table {
            columns: &tables::REQUESTS,
            rows: tables::requests(self.requests.iter()),
            order: self.order,
        }
    }

    /// Selects the request this number of rows further down; up if it is negative.
    pub fn move_by(&mut self, by: isize) {
        let table = self.table();
        self.selection.move_by(&table.shown(""), by);
        self.scroll = 0;
    }

    /// Opens what is selected further, as far as there is something. Returns false when there is nothing.
    pub fn open(&mut self) -> bool {
        let deeper = match self.depth {
            Depth::Requests => Depth::Waterfall,
            Depth::Waterfall => Depth::Json,
            Depth::Json => return false,
        };
        let is_any = !self.requests.is_empty();
        if is_any {
            self.depth = deeper;
            self.scroll = 0;
        }
        is_any
    }

    /// Goes back by one step. Returns false when the row itself is to be closed.
    pub fn back(&mut self) -> bool {
        self.depth = match self.depth {
            Depth::Requests => return false,
            Depth::Waterfall => Depth::Requests,
            Depth::Json => Depth::Waterfall,
        };
        self.scroll = 0;
        true
    }

    /// Returns the request that is selected.
    pub fn request(&self) -> Option<&Request<'static>> {
        let table = self.table();
        let shown = table.shown("");
        let (row, _) = shown.get(self.selection.place(&shown))?;
        self.requests.get(row.id.parse::<usize>().ok()?)
    }

    /// Returns the text of the selected request at this depth.
    pub fn text(&self, waterfall: fn(&Request<'_>, Look) -> String, look: Look) -> String {
        let Some(request) = self.request() else {
            return String::new();
        };
        if self.depth == Depth::Waterfall {
            let colour = false;
            return waterfall(request, Look { colour, ..look });
        }
        let record = Record::Request(Box::new(request.clone()));
        serde_json::to_string_pretty(&record).unwrap_or_default()
    }
}

impl Top {
    /// Opens the selected row.
    pub(super) fn open(&mut self) {
        let table = self.table();
        let shown = table.shown(&self.filter);
        let Some((row, _)) = shown.get(self.selection.place(&shown)) else {
            return;
        };
        self.opened = Some(Opened {
            name: self.name_of(row),
            requests: self.requests_of(row, &table),
            order: SLOWEST_FIRST,
            selection: Selection::default(),
            depth: Depth::Requests,
            scroll: 0,
        });
    }

    /// Returns what a row is: `location /api/`.
    fn name_of(&self, row: &Row) -> String {
        let view = match self.view {
            View::Group(key) => self.shown().keys().get(key).map(ToString::to_string),
            View::Upstreams => Some("upstream".to_owned()),
            View::Workers => Some("worker".to_owned()),
        };
        let name = row.id.replace('\t', " ");
        let name = if row.is_other { "other" } else { name.trim() };
        format!("{} {name}", view.unwrap_or_default())
    }

    /// Returns the requests of a row that are kept, each once.
    fn requests_of(&self, row: &Row, table: &Table) -> Vec<Request<'static>> {
        let names: HashSet<&str> = table.rows.iter().map(|row| row.id.as_str()).collect();
        let is_of_row = |request: &Request<'_>| match self.names(request) {
            names if !row.is_other => names.iter().any(|name| is_same(&row.id, name)),
            of_request => !of_request.iter().any(|name| names.contains(name.as_str())),
        };
        let mut seen = HashSet::new();
        let lines = self.shown().kept().filter(|line| seen.insert(&***line));
        let requests = lines.filter_map(|line| serde_json::from_str(line).ok());
        let mut requests: Vec<Request<'static>> = requests.filter(is_of_row).collect();
        requests.sort_by_key(|request| Reverse(request.elapsed_ns));
        requests.truncate(REQUESTS_MAX);
        requests
    }

    /// Returns the ids of all rows of the view that a request belongs to.
    fn names(&self, request: &Request<'_>) -> Vec<String> {
        match self.view {
            View::Group(key) => {
                let key = self.shown().keys().get(key);
                let name = key.and_then(|key| key.of(request));
                vec![name.map_or_else(|| NONE.to_owned(), Into::into)]
            }
            View::Workers => vec![request.pid.to_string()],
            View::Upstreams => {
                let group = request.place.upstream_name.as_deref().unwrap_or_default();
                let addr = |attempt: &ngx_bpf_record::Attempt<'_>| {
                    attempt.addr.as_deref().unwrap_or_default().to_owned()
                };
                let own = request.upstreams.iter().map(addr);
                let own = own.map(|addr| format!("{group}\t{addr}"));
                let subrequests = request.subrequests.iter();
                let others = subrequests.flat_map(|sub| sub.upstreams.iter().map(addr));
                let others = others.map(|addr| format!("\t{addr}"));
                let whole = (!request.upstreams.is_empty()).then(|| group.to_owned());
                own.chain(others).chain(whole).collect()
            }
        }
    }
}

/// Returns whether a row is the one of this name, of which rows keep the begin only.
fn is_same(row: &str, name: &str) -> bool {
    row == name || (row.len() > LONG_NAME && row != OTHER && name.starts_with(row))
}
