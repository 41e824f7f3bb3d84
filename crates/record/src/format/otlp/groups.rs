// SPDX-License-Identifier: MIT OR Apache-2.0
//! A batch of spans or log records, by the resources that they belong to.

use super::resource::Identity;
use super::resource::Resource;
use crate::container::Container;

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

    /// Returns what the resource of a record has, of a server and a worker. The pid 0 stands for no worker.
    pub fn of(
        &mut self,
        server_name: Option<&str>,
        pid: u32,
        container: &Container<'_>,
    ) -> &mut Vec<u8> {
        let service = self.identity.service(server_name);
        let is_it = |(resource, _): &(Resource, _)| resource.is(service, pid, container);
        /* Most records belong to the same resource as the one before. */
        let at = self.list.iter().rposition(is_it).unwrap_or_else(|| {
            let resource = Resource::new(service, pid, container);
            self.list.push((resource, Vec::new()));
            self.list.len() - 1
        });
        &mut self.list[at].1
    }

    /// Appends the batch as one line with its end, and begins a new one. Of an empty batch there is no line.
    pub fn write_line(&mut self, lists: &Lists, line: &mut Vec<u8>) {
        let start = line.len();
        let list = std::mem::take(&mut self.list);
        let Lists([resources, scopes, items]) = lists;
        for (resource, json) in list.iter().filter(|(_, json)| !json.is_empty()) {
            match line.len() == start {
                true => put(line, &["{\"", resources, "\":[{"]),
                false => put(line, &[",{"]),
            }
            resource.write(line, &self.identity);
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
    }
}

/// Appends texts.
fn put(line: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        line.extend_from_slice(text.as_bytes());
    }
}
