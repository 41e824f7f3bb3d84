// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx for one test, with its own prefix and ports. It is stopped when it is dropped.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc::Receiver;

use tempfile::TempDir;

use super::PATIENCE;
use super::build::REWRITE;
use super::build::WITHOUT_CACHE;
use super::build::about;
use super::build::binary;
use super::lines;
use super::ports::free_port;
use super::program::children;
use super::program::kill;
use super::program::open_to_all;
use super::record::Logged;
use super::wait_right;
use super::wait_until;

/// The prefix of AddressSanitizer's reports, in a build that has it.
const REPORT: &str = "asan";

/// The variables with which records are compared.
const LOG_FORMAT: &str = r#"log_format truth escape=json '{"pid":$pid,"connection":$connection,"connection_requests":$connection_requests,"remote_addr":"$remote_addr","remote_port":"$remote_port","server_addr":"$server_addr","server_port":"$server_port","scheme":"$scheme","server_protocol":"$server_protocol","request_method":"$request_method","request_uri":"$request_uri","uri":"$uri","http_host":"$http_host","server_name":"$server_name","status":"$status","request_length":$request_length,"bytes_sent":$bytes_sent,"upstream_cache_status":"$upstream_cache_status","upstream_addr":"$upstream_addr","upstream_status":"$upstream_status","upstream_bytes_sent":"$upstream_bytes_sent","upstream_bytes_received":"$upstream_bytes_received","upstream_header_time":"$upstream_header_time","upstream_response_time":"$upstream_response_time"}';"#;

/// The configuration of a test's nginx.
pub struct Config<'a> {
    /// The content of `http`. `{port}`, `{upstream}` and `{prefix}` are replaced.
    pub http: &'a str,
    /// The number of workers.
    pub workers: usize,
    /// The number of connections that each of them may have.
    pub connections: usize,
    /// The port of the upstream; 0: there is none.
    pub upstream: u16,
    /// The content of the main context.
    pub main: &'a str,
    /// The binary.
    pub binary: PathBuf,
    /// Whether it leaves its parent, which an nginx that will be upgraded must do.
    pub daemon: bool,
    /// Whether the binary is a script that starts nginx in a pid namespace.
    pub namespace: bool,
    /// A variable that the binary does not have.
    pub unlogged: Option<&'a str>,
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self {
            http: "server { listen 127.0.0.1:{port}; location / { return 200 'hello\\n'; } }",
            workers: 1,
            connections: 512,
            upstream: 9,
            main: "",
            binary: binary(),
            daemon: false,
            namespace: false,
            unlogged: None,
        }
    }
}

impl Config<'_> {
    /// Returns the content of nginx.conf, for a build and the folder with its files.
    fn text(&self, about: &str, root: &str, port: u16) -> String {
        let fill_in = |text: &str| {
            text.replace("{port}", &port.to_string())
                .replace("{upstream}", &self.upstream.to_string())
                .replace("{prefix}", root)
        };
        let mut log_format = LOG_FORMAT.to_owned();
        if about.contains(WITHOUT_CACHE) {
            log_format = log_format.replace("$upstream_cache_status", "");
        }
        if let Some(variable) = self.unlogged {
            log_format = log_format.replace(&format!("${variable}"), "");
        }
        let (main, mut http) = (fill_in(self.main), fill_in(self.http));
        if about.contains(&format!("--without-{REWRITE}")) {
            http = without_return(&http);
        }
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};"))
            .join("\n");
        format!(
            "daemon {};\nworker_processes {};\npid {root}/nginx.pid;\nerror_log stderr info;\n{main}\n\
             events {{ worker_connections {}; }}\n\
             http {{\n{log_format}\naccess_log {root}/access.log truth;\n{temp}\n{http}\n}}\n",
            if self.daemon { "on" } else { "off" },
            self.workers,
            self.connections,
        )
    }
}

/// A running nginx.
pub struct Nginx {
    /// The process that was started: the master, unless it has left its parent.
    child: Option<Child>,
    master: u32,
    /// The folder with its files.
    prefix: TempDir,
    /// The port on which it listens.
    pub port: u16,
    /// Lines of its error log.
    log: Receiver<String>,
}

impl Nginx {
    /// Starts two workers for a steady load: 2000 requests per second for `/file`, none of which is
    /// lost; requests that come faster are answered later. When the build does not support that,
    /// prints SKIP and returns `None`.
    pub fn steady(config: Config<'_>) -> Option<Self> {
        if about(&config.binary).contains("--without-http_limit_req_module") {
            eprintln!("SKIP: {} has no limit_req", config.binary.display());
            return None;
        }
        let nginx = Self::start(&Config {
            http: "limit_req_zone $server_port zone=steady:64k rate=2000r/s; keepalive_requests 50;
                   server { listen 127.0.0.1:{port}; root {prefix}/html;
                            location / { limit_req zone=steady burst=1000; } }",
            workers: 2,
            ..config
        });
        nginx.file("file", b"hello");
        Some(nginx)
    }

    /// Starts one worker that answers every request.
    pub fn simple() -> Self {
        Self::start(&Config::default())
    }

    /// Starts one worker with this content of `http`.
    pub fn with(http: &str, upstream: u16) -> Self {
        Self::start(&Config {
            http,
            upstream,
            ..Config::default()
        })
    }

    /// Does the same, and calls `prepare` with its folder before it starts.
    pub fn prepared(http: &str, upstream: u16, prepare: impl FnOnce(&Path)) -> Self {
        let config = Config {
            http,
            upstream,
            ..Config::default()
        };
        Self::prepared_with(&config, prepare)
    }

    /// Does the same with any configuration.
    pub fn prepared_with(config: &Config<'_>, prepare: impl FnOnce(&Path)) -> Self {
        let prefix = folder();
        prepare(prefix.path());
        Self::start_in(prefix, config)
    }

    /// Starts nginx, and returns when its workers have been started.
    pub fn start(config: &Config<'_>) -> Self {
        Self::start_in(folder(), config)
    }

    /// Starts nginx in its folder.
    fn start_in(prefix: TempDir, config: &Config<'_>) -> Self {
        let port = free_port();
        let root = prefix.path().display().to_string();
        let about = about(&config.binary);
        let text = config.text(&about, &root, port);
        fs::write(prefix.path().join("nginx.conf"), text).unwrap();
        fs::create_dir(prefix.path().join("html")).unwrap();
        open_to_all(&prefix.path().join("html"));
        let mut child = Command::new(&config.binary)
            .arg("-p")
            .arg(prefix.path())
            .args(["-c", "nginx.conf"])
            .args(early_log(&about))
            .env(
                "ASAN_OPTIONS",
                format!("detect_leaks=0:log_path={root}/{REPORT}"),
            )
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nginx is installed by make test");
        let log = lines(child.stderr.take().unwrap());
        let master = child.id();
        let mut nginx = Self {
            child: Some(child),
            master,
            prefix,
            port,
            log,
        };
        for _ in 0..config.workers {
            nginx.wait_for_log("start worker process ");
        }
        if config.daemon {
            nginx.child.take().unwrap().wait().unwrap();
            nginx.master = nginx.pid_of_file();
        }
        if config.namespace {
            nginx.master = nginx.workers()[0];
        }
        nginx
    }

    pub fn pid(&self) -> u32 {
        self.master
    }

    /// Returns the pid of the newest master.
    pub fn pid_of_file(&self) -> u32 {
        let pid = fs::read_to_string(self.prefix.path().join("nginx.pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    /// Returns the folder with its files.
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// Returns the pids of its workers. There are none when the master has ended.
    pub fn workers(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Writes a file below its root.
    pub fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.prefix.path().join("html").join(name), content).unwrap();
    }

    /// Waits for a line of the error log that contains `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("nginx has not logged {text:?}:\n{}", seen.join("\n")),
            }
        }
    }

    /// Sends a signal to the master.
    pub fn signal(&self, name: &str) {
        kill(name, self.pid());
    }

    /// Ends it when its last request has ended. Returns what it has logged, in order.
    pub fn quit(mut self) -> Vec<Logged> {
        self.signal("QUIT");
        self.wait();
        self.logged()
    }

    /// Waits for the next worker that the master starts, and returns its pid.
    pub fn wait_for_worker(&self) -> u32 {
        let line = self.wait_for_log("start worker process ");
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until its earlier workers have ended, so that no more than this number is left. A master that has ended
    /// has none.
    pub fn wait_workers(&self, most: usize) {
        wait_right(|| self.workers(), |workers| workers.len() <= most);
    }

    /// Waits until this number of requests has been logged. nginx logs a request after the client
    /// has its answer.
    pub fn wait_logged(&self, count: usize) {
        self.wait_until(|logged| logged.len() >= count);
    }

    /// Waits until one of these workers has logged a request.
    pub fn wait_served(&self, workers: &[u32]) {
        self.wait_until(|logged| logged.iter().any(|logged| workers.contains(&logged.pid)));
    }

    /// Waits until the access log satisfies a condition.
    fn wait_until(&self, is_there: impl Fn(&[Logged]) -> bool) {
        wait_until("requests are not in the log", || is_there(&self.logged()));
    }

    /// Waits until it has ended: until all its processes have, when they are not children of the
    /// test.
    fn wait(&mut self) {
        match self.child.take() {
            Some(mut child) => drop(child.wait()),
            None => while self.log.recv_timeout(PATIENCE).is_ok() {},
        }
    }

    /// Returns the access log so far.
    pub fn logged(&self) -> Vec<Logged> {
        self.logged_in("access.log")
    }

    /// Returns another log in its folder, which has the same format.
    pub fn logged_in(&self, file: &str) -> Vec<Logged> {
        let bytes = fs::read(self.prefix.path().join(file)).unwrap_or_default();
        /* The end of a line that is just being written may be missing. */
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        String::from_utf8_lossy(&bytes[..whole])
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }
}

impl Nginx {
    /// Ends the processes that still run.
    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            /* After an upgrade there may be two masters. */
            let pid_file = self.prefix.path().join("nginx.pid");
            let newest = fs::read_to_string(pid_file).unwrap_or_default();
            let mut kill = Command::new("kill");
            let _ = kill
                .arg(self.master.to_string())
                .args(newest.split_whitespace())
                .output();
            return;
        };
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("TERM");
            let _ = child.wait();
        }
    }

    /// Returns AddressSanitizer's reports about its processes.
    fn reports(&self) -> Vec<String> {
        let files = fs::read_dir(self.prefix.path()).unwrap().flatten();
        let is_report = |name: &str| name.starts_with(&format!("{REPORT}."));
        files
            .filter(|file| file.file_name().to_str().is_some_and(is_report))
            .map(|file| fs::read_to_string(file.path()).unwrap())
            .collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end();
        let reports = self.reports();
        assert!(
            reports.is_empty() || std::thread::panicking(),
            "{}",
            reports.concat()
        );
    }
}

/// Before it has read its configuration, nginx logs to the file that was compiled in; since 1.19.5
/// an option names another one.
fn early_log(about: &str) -> &'static [&'static str] {
    let knows = about.contains("-e filename");
    if knows { &["-e", "stderr"] } else { &[] }
}

/// Replaces `return`, which belongs to the rewrite module. A status of 200 then has a body of
/// nginx's own, whatever the text was. A module that answers GET only answers any method by way of
/// 405.
fn without_return(http: &str) -> String {
    let mut parts = http.split(" return ");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (answer, rest) = part.split_once(';').unwrap();
        let (status, _) = answer.split_once(' ').unwrap_or((answer, ""));
        text += &match status {
            "200" => " empty_gif; error_page 405 =200 $uri;".to_owned(),
            status => format!(" try_files /nowhere ={status};"),
        };
        text += rest;
    }
    text
}

/// Makes a folder for one nginx, whose workers run as an unprivileged user.
fn folder() -> TempDir {
    let folder = TempDir::with_prefix("ngx-bpf-test").unwrap();
    open_to_all(folder.path());
    folder
}
