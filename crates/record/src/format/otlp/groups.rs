// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of spans or log records, by the resources that they belong to.

use std::io;

use super::resource::Identity;
use super::resource::Resource;
use crate::request::Request;

/// The version of the semantic conventions whose names are written.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The names of the lists in a batch: of resources, of scopes, and of what they have.
pub(super) struct Lists(pub [&'static str; 3]);

/// A batch.
pub(super) struct Groups {
    identity: Identity,
    /// The resources, each with the JSON of what it has.
    list: Vec<(Resource, Vec<u8>)>,
}

impl Groups {
    /// Creates an empty batch.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            list: Vec::new(),
        }
    }

    /// Returns what the resource of a request has.
    pub fn of_request(&mut self, request: &Request<'_>) -> &mut Vec<u8> {
        let identity = &self.identity;
        /* Most requests belong to the same resource as the one before. */
        let known = (self.list.iter()).rposition(|(resource, _)| resource.has(request, identity));
        let at = known.unwrap_or_else(|| {
            self.list
                .push((Resource::of(request, identity), Vec::new()));
            self.list.len() - 1
        });
        &mut self.list[at].1
    }

    /// Returns what a resource has. `of` makes it of what all resources have.
    pub fn of(&mut self, of: impl FnOnce(&Identity) -> Resource) -> &mut Vec<u8> {
        let resource = of(&self.identity);
        let known = self.list.iter().rposition(|(known, _)| *known == resource);
        let at = known.unwrap_or_else(|| {
            self.list.push((resource, Vec::new()));
            self.list.len() - 1
        });
        &mut self.list[at].1
    }

    /// Appends the batch as one line with its end, and begins a new one. Of an empty batch there is no line.
    ///
    /// Fails when it can't be encoded; then nothing is appended, and the batch is gone.
    pub fn write_line(&mut self, lists: &Lists, line: &mut Vec<u8>) -> io::Result<()> {
        let start = line.len();
        let list = std::mem::take(&mut self.list);
        let Lists([resources, scopes, items]) = lists;
        for (resource, json) in list.iter().filter(|(_, json)| !json.is_empty()) {
            match line.len() == start {
                true => put(line, &["{\"", resources, "\":[{"]),
                false => put(line, &[",{"]),
            }
            if let Err(error) = resource.write(line, &self.identity) {
                line.truncate(start);
                return Err(error);
            }
            put(
                line,
                &[
                    ",\"",
                    scopes,
                    "\":[{\"scope\":{\"name\":\"ngx-bpf\",\"version\":\"",
                ],
            );
            put(line, &[env!("CARGO_PKG_VERSION"), "\"},\"", items, "\":["]);
            line.extend_from_slice(json);
            put(
                line,
                &[
                    "],\"schemaUrl\":\"",
                    SCHEMA_URL,
                    "\"}],\"schemaUrl\":\"",
                    SCHEMA_URL,
                    "\"}",
                ],
            );
        }
        if line.len() > start {
            line.extend_from_slice(b"]}\n");
        }
        Ok(())
    }
}

/// Appends texts.
fn put(line: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        line.extend_from_slice(text.as_bytes());
    }
}
