// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds of nginx that stand in for forks, stripped: `tests/builds/stand-in` makes them.

use std::path::PathBuf;

use ngx_bpf_record::values::State;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::kept;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::tool::check;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::yard::Yard;
use crate::suite::root::inflight::wait_states;

/// A server with an upstream.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        location / { return 200 'hello\\n'; }
        location /upstream { proxy_pass http://127.0.0.1:{upstream}; }
    }";

/// The stripped builds: the name in tests/NGINX, the program, and what it calls itself.
const BUILDS: [(&str, &str, &str); 5] = [
    ("openresty", "nginx.stripped", "openresty/1.27.1.2"),
    ("kong", "nginx.stripped", "openresty/1.27.1.2"),
    ("freenginx", "nginx.stripped", "freenginx/1.29.7"),
    ("angie", "angie", "Angie/1.8.3"),
    ("tengine", "nginx.stripped", "Tengine/2.4.1"),
];

/// Returns a stripped build, or prints that the test is skipped.
fn stripped(name: &str) -> Option<PathBuf> {
    let (_, program, _) = BUILDS.into_iter().find(|(known, ..)| *known == name)?;
    kept(&format!("source-{name}/objs/{program}"))
}

/// Starts a build.
fn start(binary: PathBuf, upstream: &Upstream) -> Nginx {
    Nginx::start(&Config {
        http: HTTP,
        upstream: upstream.port,
        binary,
        ..Config::default()
    })
}

/// Check that each build is traced with a layout of the table of which its code shows every member, under the name
/// of the fork, and that its records are what it logs.
#[test]
fn stripped_builds() {
    for (name, _, fork) in BUILDS {
        let Some(binary) = stripped(name) else {
            continue;
        };
        let upstream = Upstream::start();
        let nginx = start(binary, &upstream);
        let pid = nginx.pid();
        let report = check(pid, &[]);
        let found = &report["nginx"][0];
        assert_eq!(found["fork"], fork, "{name}: {found:#}");
        assert_eq!(found["layout"], "table", "{name}: {found:#}");
        let fit = &found["layout_fit"];
        assert_eq!(fit["agree"], fit["asked"], "{name}: {found:#}");
        let tool = Tool::trace(pid);
        let mut client = Client::connect(nginx.port);
        for uri in ["/", "/upstream", "/upstream/wait-20", "/?a"] {
            assert_eq!(client.get(uri).status, 200, "{name}");
        }
        let logged = nginx.quit();
        let ended = tool.wait();
        ended.assert_clean();
        let started = format!("tracing {fork}, pid {pid}, 1 worker");
        let has_started = ended.stderr.iter().any(|line| line.contains(&started));
        assert!(has_started, "{:?}", ended.stderr);
        assert_equal(&ended.records(), &logged);
        assert_eq!(logged.len(), 4, "{name}");
    }
}

/// Check a request in flight. Its age is absent where the fork has other members beside the time at which it began.
#[test]
fn in_flight() {
    for (name, ..) in BUILDS {
        let Some(binary) = stripped(name) else {
            continue;
        };
        let upstream = Upstream::start();
        let nginx = start(binary, &upstream);
        let mut client = Client::connect(nginx.port);
        client.send("GET /upstream/hang HTTP/1.1\r\nHost: t\r\n\r\n");
        let found = wait_states(&nginx, &[(Some("/upstream/hang"), Some(State::Waiting))]);
        let age = found[0].age_ms;
        let is_elsewhere = matches!(name, "freenginx" | "tengine");
        assert_eq!(age.is_none(), is_elsewhere, "{name}: {found:#?}");
        let most = PATIENCE.as_millis() as u64;
        assert!(age.is_none_or(|age| age <= most), "{name}: {found:#?}");
    }
}

/// Check that Angie, whose processes have another name and other titles, is found without `--pid`, when it runs
/// and when it starts later.
#[test]
fn angie() {
    let Some(binary) = stripped("angie") else {
        return;
    };
    let yard = Yard::new();
    let first = yard.nginx_of(&binary);
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_for_message("tracing Angie/1.8.3, pid ");
    let later = yard.nginx_of(&binary);
    let said = tool.wait_for_message("tracing Angie/1.8.3, pid ");
    assert!(said.ends_with(", 1 worker"), "{said}");
    let pid = tool.child();
    for nginx in [&first, &later] {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
        nginx.wait_logged(1);
    }
    kill("INT", pid);
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 2);
}
