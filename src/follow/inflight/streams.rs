// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests of a connection of HTTP/2: those of its streams, which nginx has in a tree of priorities, and those
//! whose frames wait to be sent.

use super::reader::REQUEST;
use super::reader::StructReader;

const CONNECTION: &str = "ngx_http_v2_connection_s";
const STREAM: &str = "ngx_http_v2_stream_s";
const FRAME: &str = "ngx_http_v2_out_frame_s";

/// The most frames, and the most nodes, of a connection that are looked at. nginx allows 128 streams, and keeps the
/// nodes of some that have ended.
const FRAMES_MAX: usize = 1024;
const NODES_MAX: usize = 1024;

/// `h2c->dependencies`, the queue of the nodes that depend on none, is this many bytes after `h2c->last_out`: from
/// 1.9.15 to 1.11.6 the queue `posted` comes before it.
const DEPENDENCIES: [u64; 2] = [8, 24];

/// Places in `ngx_http_v2_node_t` (src/http/v2/ngx_http_v2.h), which is the same in all releases: the link in its
/// queue, the queue of the nodes that depend on it, and its stream.
const NODE_LINK: u64 = 24;
const NODE_CHILDREN: u64 = 40;
const NODE_STREAM: u64 = 96;

/// Returns the main requests of the connection `h2c`. One that ends meanwhile may be left out.
pub fn requests(reader: StructReader<'_>, h2c: u64) -> Vec<u64> {
    let connection = H2Connection { reader, h2c };
    let mut streams = Vec::new();
    connection.add_waiting(&mut streams);
    connection.add_nodes(&mut streams);
    let requests = streams.into_iter();
    requests
        .filter_map(|stream| connection.request(stream))
        .collect()
}

/// A connection of HTTP/2.
struct H2Connection<'a> {
    reader: StructReader<'a>,
    /// Its `ngx_http_v2_connection_t`.
    h2c: u64,
}

impl H2Connection<'_> {
    /// Returns the main request of a stream. `None` when there is no stream of this connection.
    fn request(&self, stream: u64) -> Option<u64> {
        let reader = self.reader;
        let of_connection = reader.word(stream, (STREAM, "connection"))? == self.h2c;
        let request = reader.pointer(stream, (STREAM, "request"))?;
        let is_request = reader.word(request, (REQUEST, "stream"))? == stream;
        let main = reader.pointer(request, (REQUEST, "main"))?;
        (of_connection && is_request).then_some(main)
    }

    /// Adds the streams whose frames wait to be sent.
    fn add_waiting(&self, streams: &mut Vec<u64>) -> Option<()> {
        let mut frame = self.reader.pointer(self.h2c, (CONNECTION, "last_out"))?;
        for _ in 0..FRAMES_MAX {
            streams.extend(self.reader.pointer(frame, (FRAME, "stream")));
            frame = self.reader.pointer(frame, (FRAME, "next"))?;
        }
        Some(())
    }

    /// Adds the streams of all nodes: ngx_http_v2_set_dependency() puts the node of each stream in the tree.
    fn add_nodes(&self, streams: &mut Vec<u64>) -> Option<()> {
        let last_out = self.reader.place(self.h2c, (CONNECTION, "last_out"))?;
        let mut queues: Vec<_> = DEPENDENCIES
            .map(|distance| last_out.wrapping_add(distance))
            .to_vec();
        let mut left = NODES_MAX;
        while let Some(queue) = queues.pop() {
            let mut link = self.next(queue);
            while let Some(at) = link.filter(|link| *link != queue) {
                left = left.checked_sub(1)?;
                let node = at.wrapping_sub(NODE_LINK);
                streams.extend(self.stream(node));
                queues.push(node.wrapping_add(NODE_CHILDREN));
                link = self.next(at);
            }
        }
        Some(())
    }

    /// Returns what follows a link of a queue, or the queue itself: its first link.
    fn next(&self, link: u64) -> Option<u64> {
        self.reader.pointer(link, ("ngx_queue_s", "next"))
    }

    /// Returns the stream of a node. `None` when the stream does not have this node.
    fn stream(&self, node: u64) -> Option<u64> {
        let stream = self.reader.memory.word(node.checked_add(NODE_STREAM)?)?;
        let of_stream = self.reader.word(stream, (STREAM, "node"))?;
        (of_stream == node).then_some(stream)
    }
}
