// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf waterfall`: one request, or the slowest ones, with each part of its time.

use std::fs;
use std::fs::File;
use std::fs::FileType;
use std::io;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::format::json::write_line;
use ngx_bpf_record::statistics::Slowest;
use ngx_bpf_record::statistics::owned;
use ngx_bpf_views::waterfall;

use crate::cli::view::RequestId;
use crate::cli::view::WaterfallArgs;
use crate::commands::live;
use crate::commands::recorded;
use crate::host::terminal;
use crate::output;

/// The most requests of one id: a connection's number is given again when nginx has started anew.
const SAME_ID_MAX: usize = 100;

/// The requests that were asked for.
enum Chosen {
    /// Those with this id.
    Named(RequestId, Vec<Request<'static>>),
    /// The slowest.
    Slowest(Slowest),
}

impl Chosen {
    /// Returns what the options ask for.
    fn of(options: &WaterfallArgs) -> Self {
        match options.id {
            Some(id) => Self::Named(id, Vec::new()),
            None => Self::Slowest(Slowest::new(usize::from(options.slowest))),
        }
    }

    /// Adds a record if it is one of them.
    fn add(&mut self, record: &Record<'_>) {
        let Record::Request(request) = record else {
            return;
        };
        match self {
            /* A tunnel takes as long as its client likes. */
            Self::Slowest(_) if request.ending.tunnel => {}
            Self::Slowest(slowest) => slowest.add(request),
            Self::Named(id, found) => {
                let numbers = (request.connection, request.connection_requests);
                let is_it =
                    request.pid == id.pid && numbers == (Some(id.connection), Some(id.number));
                if is_it && found.len() < SAME_ID_MAX {
                    found.extend(owned(request));
                }
            }
        }
    }

    /// Returns them.
    fn requests(self) -> Vec<Request<'static>> {
        match self {
            Self::Named(_, found) => found,
            Self::Slowest(slowest) => slowest.requests().cloned().collect(),
        }
    }
}

/// Shows the requests that the options ask for. Returns false when tracing failed at its end, which was reported.
pub fn waterfall(options: &WaterfallArgs) -> Result<bool> {
    let files = &options.view.files;
    let (chosen, ended) = if files.is_empty() {
        let (chosen, _, ended) = live::trace(
            &options.view.choice,
            Chosen::of(options),
            Chosen::add,
            |_| {},
        )?;
        (chosen, ended)
    } else {
        let mut chosen = Chosen::of(options);
        recorded::each(files, &options.view.choice, |record| chosen.add(record))?;
        (chosen, true)
    };
    let requests = chosen.requests();
    if requests.is_empty() {
        match options.id {
            Some(_) => bail!("no request has this id"),
            None => bail!("there is no request"),
        }
    }
    write(options, &requests)?;
    Ok(ended)
}

/// Writes the requests in the forms that were asked for: to files, or else to stdout.
fn write(options: &WaterfallArgs, requests: &[Request<'_>]) -> Result<()> {
    if let Some(path) = &options.html {
        save(path, waterfall::html(requests).as_bytes())?;
    }
    for (path, value) in [
        (&options.trace, waterfall::trace as fn(&[Request<'_>]) -> _),
        (&options.har, waterfall::har),
    ] {
        if let Some(path) = path {
            let mut line = Vec::new();
            write_line(&mut line, &value(requests))?;
            save(path, &line)?;
        }
    }
    if options.html.is_some() || options.trace.is_some() || options.har.is_some() {
        return Ok(());
    }
    let look = terminal::look(options.view.ascii);
    let screens: Vec<_> = requests
        .iter()
        .map(|request| waterfall::terminal(request, look))
        .collect();
    output::print(screens.join("\n").as_bytes())
}

/// Writes a file anew. Requests may hold secrets: only its owner can read it.
fn save(path: &Path, text: &[u8]) -> Result<()> {
    let written = create(path).and_then(|mut file| file.write_all(text));
    written.with_context(|| format!("failed to write {path:?}"))
}

/// Creates a file. One that is there, or a link, is removed; what else is there is written to.
fn create(path: &Path) -> io::Result<File> {
    let is_replaced = |kind: FileType| kind.is_file() || kind.is_symlink();
    let mut options = File::options();
    match path.symlink_metadata() {
        Ok(known) if is_replaced(known.file_type()) => fs::remove_file(path)?,
        Ok(_) => return options.write(true).open(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    options.write(true).create_new(true).mode(0o600).open(path)
}
