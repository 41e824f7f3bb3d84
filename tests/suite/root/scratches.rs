// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that is used while a request ends: one scratch for each CPU, and spares. Here the test
//! takes them, as runs of the program do that are preempted before they end.

use std::net::TcpStream;
use std::ops::Range;

use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use ngx_bpf_record::values::Cause;

use crate::suite::common::client::Client;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Tool;
use crate::suite::common::tool::bpftool;

const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        location / { return 200 'hello\\n'; }
    }";

/// The scratches that any CPU may take: those before that of the first CPU.
const SPARES: u32 = 16;

/// The map of a tool.
struct Scratches(MapHandle);

impl Scratches {
    fn of(tool: &Tool) -> Self {
        let mut ids = tool.bpf_ids("map");
        ids.retain(|id| bpftool(&["map", "show", "id", id])["name"] == "scratches");
        assert_eq!(ids.len(), 1, "{ids:?}");
        let id = ids.first().unwrap().parse().unwrap();
        Self(MapHandle::from_map_id(id).unwrap())
    }

    /// Returns the indices of those of the CPUs.
    fn of_cpus(&self) -> Range<u32> {
        SPARES..self.0.max_entries()
    }

    /// Takes some of them, or releases them.
    fn set_taken(&self, range: Range<u32>, is_taken: bool) {
        let mut value = vec![0; self.0.value_size() as usize];
        value[..8].copy_from_slice(&u64::from(is_taken).to_ne_bytes());
        for index in range {
            let key = index.to_ne_bytes();
            self.0.update(&key, &value, MapFlags::ANY).unwrap();
        }
    }

    /// Returns the number of those that are taken.
    fn taken(&self) -> usize {
        let keys = 0..self.0.max_entries();
        keys.filter(|index| {
            let value = self.0.lookup(&index.to_ne_bytes(), MapFlags::ANY);
            value.unwrap().unwrap()[..8] != [0; 8]
        })
        .count()
    }
}

/// Sends a request on a connection, and waits until nginx has closed it: it frees a request before it
/// does that.
fn request(client: &mut Client, uri: &str) {
    client.send(format!(
        "GET {uri} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    ));
    assert!(client.rest().starts_with(b"HTTP/1.1 200"));
}

/// Check that a request whose CPU's scratch is taken uses a spare one and releases it, and that a
/// request for which none is left is counted as lost, whereupon the next ones are recorded again.
#[test]
fn taken() {
    let nginx = Nginx::start(&Config {
        http: HTTP,
        ..Config::default()
    });
    let tool = Tool::trace(nginx.pid());
    let scratches = Scratches::of(&tool);
    let cpus = scratches.of_cpus();
    assert!(!cpus.is_empty());
    let get = |uri| request(&mut Client::connect(nginx.port), uri);
    get("/own");
    assert_eq!(scratches.taken(), 0);
    scratches.set_taken(cpus.clone(), true);
    get("/spare");
    assert_eq!(scratches.taken(), cpus.len());
    scratches.set_taken(0..SPARES, true);
    let mut kept = Client::connect(nginx.port);
    kept.get("/kept");
    get("/lost");
    assert_eq!(scratches.taken(), cpus.len() + SPARES as usize);
    scratches.set_taken(0..cpus.end, false);
    request(&mut kept, "/again");
    assert_eq!(scratches.taken(), 0);
    let ended = tool.stop();
    let summary = ended.summary();
    assert_eq!((summary.seen, summary.written, summary.lost), (5, 3, 2));
    let lost = ended.lost();
    assert!(lost.iter().all(|lost| lost.cause == Cause::InflightFull));
    assert_eq!(lost.iter().map(|lost| lost.count).sum::<u64>(), 2);
    let records = ended.records();
    let uris: Vec<_> = records.iter().map(|record| record.uri.as_deref()).collect();
    assert_eq!(uris, [Some("/own"), Some("/spare"), Some("/again")]);
    /* The connection has gone on with the request after the one that was lost. */
    for record in &records {
        record.assert_complete();
    }
}

/// Check the same with streams of HTTP/2.
#[test]
fn taken_http2() {
    let nginx = Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port} http2; location / { return 200 'hello\\n'; } }",
        ..Config::default()
    });
    let tool = Tool::trace(nginx.pid());
    let scratches = Scratches::of(&tool);
    let all = 0..scratches.of_cpus().end;
    let stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
    let mut client = Http2::start(Box::new(stream), 65535);
    let mut get = |stream, uri| {
        client.send(&http2::get(stream, uri));
        client.receive([stream]);
        client.ping(); /* when nginx answers it, the request is freed */
    };
    get(1, "/own");
    scratches.set_taken(all.clone(), true);
    get(3, "/lost");
    scratches.set_taken(all, false);
    get(5, "/again");
    drop(nginx);
    let ended = tool.wait();
    let summary = ended.summary();
    assert_eq!((summary.seen, summary.written, summary.lost), (3, 2, 1));
    for record in ended.records() {
        record.assert_complete();
    }
}
