// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page of `ngx-bpf waterfall --html` in a browser: it runs nothing that a request brought, and asks no network.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use super::common::listener::listen;
use super::common::listener::read_head;
use super::common::recorded::incidents;
use super::common::tool::PROGRAM;

/// Texts that would change the title or load a picture, if they were markup. The second one would turn the text after it.
const HOSTILE: [&str; 3] = [
    "<script>document.title='owned'</script><img src=http://evil.test/a onerror=\"document.title='owned'\">",
    "\u{202e}\u{200b}\x1b[31m\u{9b}2J\"'><svg onload=\"document.title='owned'\"><style>@import 'http://evil.test/b'</style>",
    "javascript:document.title='owned'//]]></title></style></svg><iframe src=http://evil.test/c></iframe>",
];

/// The end of the names of hosts that Chromium asks for the time and for updates, whatever it shows.
const OWN: [&str; 3] = [".google.com", ".googleapis.com", ".gstatic.com"];

/// A proxy that answers nothing, and keeps the hosts that are asked of it.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts it.
    fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&asked);
        let port = listen(move |mut stream| {
            let to = Arc::clone(&to);
            /* The browser opens connections without a request, too. */
            thread::spawn(move || {
                if let Ok(head) = read_head(&mut stream) {
                    let head = String::from_utf8_lossy(&head).into_owned();
                    /* `CONNECT host:port` or `GET http://host/path`. */
                    let target = head.split(' ').nth(1).unwrap_or_default();
                    let target = target.strip_prefix("http://").unwrap_or(target);
                    let host = target.split(['/', ':']).next().unwrap_or_default();
                    to.lock().unwrap().push(host.to_owned());
                }
            });
        });
        Self { port, asked }
    }

    /// Returns the hosts that were asked, without those of the browser itself.
    fn hosts(&self) -> Vec<String> {
        let mut hosts = self.asked.lock().unwrap().clone();
        hosts.retain(|host| !OWN.iter().any(|own| host.ends_with(own)));
        hosts
    }
}

/// Shows a page, and returns what it has become.
fn show(page: &Path, proxy: &Proxy, folder: &Path) -> String {
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
    ]);
    command.args(["--disable-background-networking", "--disable-sync"]);
    command.arg(format!("--proxy-server=127.0.0.1:{}", proxy.port));
    command.arg("--proxy-bypass-list=<-loopback>");
    command.arg(format!(
        "--user-data-dir={}",
        folder.join("profile").display()
    ));
    command.args(["--virtual-time-budget=2000", "--dump-dom"]);
    command.arg(format!("file://{}", page.display()));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a recorded request for each hostile text, which it has in all places that a client or an upstream fills.
fn lines() -> String {
    let mut records = incidents().lines();
    let retried = records
        .find(|line| line.contains("\"reused_idle_ns\""))
        .unwrap();
    let lines = HOSTILE.map(|text| {
        let mut record: Value = serde_json::from_str(retried).unwrap();
        for key in [
            "request_uri",
            "uri",
            "http_host",
            "location",
            "server_name",
            "remote_addr",
            "request_method",
        ] {
            record[key] = Value::from(format!("/{text}"));
        }
        for attempt in record["upstreams"].as_array_mut().unwrap() {
            attempt["addr"] = Value::from(text);
        }
        record.to_string() + "\n"
    });
    lines.concat()
}

/// Check that a page with hostile requests has them as text, that no script has run, and that nothing was loaded; and that
/// the same texts in a page without care do run and load.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn page() {
    let folder = tempfile::tempdir().unwrap();
    let [from, page, careless] =
        ["requests.json", "a.html", "b.html"].map(|name| folder.path().join(name));
    fs::write(&from, lines()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["waterfall", "--slowest=3", "--html"]);
    let output = command.arg(&page).arg(&from).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let proxy = Proxy::start();
    let shown = show(&page, &proxy, folder.path());
    assert!(
        shown.contains("<title>ngx-bpf: 3 requests</title>"),
        "{shown}"
    );
    assert!(
        shown.contains("&lt;script&gt;document.title='owned'&lt;/script&gt;"),
        "{shown}"
    );
    assert!(shown.contains("\\u{202e}\\u{200b}\\u{1b}[31m"), "{shown}");
    for markup in ["<script", "<img", "<iframe", "href=\"j", "\u{202e}", "\x1b"] {
        assert!(!shown.contains(markup), "{markup} {shown}");
    }
    assert_eq!(shown.matches("<section").count(), 3);
    assert_eq!(shown.matches("<style").count(), 1);
    assert_eq!(proxy.hosts(), [""; 0]);
    fs::write(
        &careless,
        format!("<title>good</title>{}", HOSTILE.concat()),
    )
    .unwrap();
    let shown = show(&careless, &proxy, folder.path());
    assert!(shown.contains("<title>owned</title>"), "{shown}");
    let hosts = proxy.hosts();
    assert!(
        !hosts.is_empty() && hosts.iter().all(|host| host == "evil.test"),
        "{hosts:?}"
    );
}
