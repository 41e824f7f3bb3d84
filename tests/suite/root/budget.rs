// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing may cost, by counts, which do not depend on how fast a machine is.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::suite::common::build::about;
use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Tool;
use crate::suite::common::tool::bpftool;
use crate::suite::common::upstream::Upstream;

/// The instructions that the verifier of Linux 6.18 processes in the programs that run most often, and in the longest
/// ones, as clang 14 compiles them, for nginx 1.22.1 as Debian builds it. A change that is meant to make one longer
/// changes its number here.
const VERIFIED: [(&str, u64); 8] = [
    ("free_request", 59_752),
    ("init_connection", 1_365),
    ("process_exit_read_traced", 50_162),
    ("send_output_queue", 5_002),
    ("sock_recv_traced", 26_134),
    ("sock_send_traced", 11_600),
    ("sock_state_traced", 17_453),
    ("wait_ended", 7_706),
];

/// The nginx of the numbers: that of the machine, whichever build the other tests trace.
const NGINX: &str = "/usr/sbin/nginx";

/// Returns the first line that a program prints about itself.
fn version(program: &str, option: &str) -> String {
    let output = Command::new(program).arg(option).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Check that no program has grown by more than a tenth.
#[test]
fn instructions() {
    let (kernel, clang) = (version("uname", "-r"), version("clang", "--version"));
    let is_known = kernel.starts_with("6.18.")
        && clang.contains("version 14.")
        && Path::new(NGINX).exists()
        && about(Path::new(NGINX)).contains("nginx/1.22.1");
    if !is_known {
        println!("SKIP: the numbers are those of Linux 6.18, clang 14 and nginx 1.22.1");
        return;
    }
    let nginx = Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port}; location / { return 200; } }",
        binary: NGINX.into(),
        ..Config::default()
    });
    let verified = Tool::trace(nginx.pid()).verified_instructions();
    for (program, known) in VERIFIED {
        let now = verified[program];
        println!("{program}: {now}, of {known}");
        assert!(now <= known + known / 10, "{program}: {now}, of {known}");
    }
}

/// Check that one uprobe runs for each request, and one for each connection. This nginx runs a file of its own, because
/// the kernel also counts the runs in other processes of the same file.
#[test]
fn uprobes() {
    const REQUESTS: usize = 50;
    let upstream = Upstream::start();
    let http = "upstream kept { server 127.0.0.1:{upstream}; keepalive 4; }
        server { listen 127.0.0.1:{port}; location / { return 200; }
                 location /wait-0 { proxy_pass http://kept; proxy_http_version 1.1;
                                    proxy_set_header Connection ''; } }";
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("nginx");
    fs::copy(binary(), &copy).unwrap();
    let nginx = Nginx::start(&Config {
        http,
        upstream: upstream.port,
        binary: copy,
        ..Config::default()
    });
    /* With this option the kernel counts the runs. */
    let tool = Tool::start(
        &["--json", "--self-stats", "-p", &nginx.pid().to_string()],
        1,
    );
    let mut client = Client::connect(nginx.port);
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.get("/wait-0").status, 200);
    }
    nginx.wait_logged(2 * REQUESTS);
    let ids = tool.bpf_ids("prog");
    let programs = ids.iter().map(|id| bpftool(&["prog", "show", "id", id]));
    let mut runs: Vec<_> = programs
        .filter(|program| program["type"] == "kprobe")
        .filter_map(|program| {
            Some((
                program["name"].as_str()?.to_owned(),
                program["run_cnt"].as_u64()?,
            ))
        })
        .collect();
    runs.sort();
    let expected = [
        ("free_request".to_owned(), 2 * REQUESTS as u64),
        ("init_connection".to_owned(), 1),
    ];
    assert_eq!(runs, expected);
}
