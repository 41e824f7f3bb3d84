// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules that nginx loads: Debian's own for scripts, filters and content. Every record is compared with the
//! access log; what a script does on sockets of its own is not in it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::build::binary;
use crate::suite::common::build::is_before;
use crate::suite::common::cached::cached;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::write_program;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_delay;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::requests::traced;

mod geoip;

/// The modules, in the order in which they have to be loaded.
const MODULES: [&str; 11] = [
    "ndk_http",
    "ngx_http_lua",
    "ngx_http_js",
    "ngx_http_perl",
    "ngx_http_echo",
    "ngx_http_headers_more_filter",
    "ngx_http_brotli_filter",
    "ngx_http_geoip2",
    "ngx_http_dav_ext",
    "ngx_http_modsecurity",
    "ngx_nchan",
];

/// The scripts of njs.
const NJS: &str = "
    function hello(r) { r.return(200, 'njs\\n'); }
    async function fetch(r) {
        const reply = await ngx.fetch('http://127.0.0.1:{upstream}/wait-40/endless');
        const text = await reply.text();
        r.return(200, text);
    }
    async function sub(r) {
        const reply = await r.subrequest('/proxy/wait-40');
        r.return(reply.status, reply.responseText);
    }
    export default { hello, fetch, sub };";

/// An nginx with all these modules, and its upstream.
struct Loaded {
    nginx: Nginx,
    _upstream: Upstream,
    _folder: TempDir,
}

impl Loaded {
    /// Starts it with these locations. `None` when the modules do not fit the tested nginx.
    fn start(locations: &str) -> Option<Self> {
        let unpacked = cached("modules/.complete", "tests/fetch")?;
        let unpacked = unpacked.parent().unwrap();
        if !is_debians() {
            println!("SKIP: Debian's modules fit Debian 12's nginx only");
            return None;
        }
        let upstream = Upstream::start();
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("geo.mmdb"), geoip::database("XX")).unwrap();
        fs::create_dir(at("dav")).unwrap();
        let scripts = NJS.replace("{upstream}", &upstream.port.to_string());
        fs::write(at("test.js"), scripts).unwrap();
        for readable in ["geo.mmdb", "dav", "test.js"] {
            open_to_all(&folder.path().join(readable));
        }
        let libraries = entry_of(&unpacked.join("usr/lib"), "-linux-gnu");
        let perl = entry_of(&libraries.join("perl5"), "").display().to_string();
        let unpacked = unpacked.display();
        let load = |name: &&str| {
            format!("load_module {unpacked}/usr/lib/nginx/modules/{name}_module.so;\n")
        };
        let nginx = Nginx::start(&Config {
            binary: with_libraries(folder.path(), &libraries),
            upstream: upstream.port,
            main: &MODULES.iter().map(load).collect::<String>(),
            http: &format!(
                "limit_req_zone $server_port zone=five:64k rate=5r/s;
                 lua_package_path '{unpacked}/usr/share/lua/5.1/?.lua;;';
                 perl_modules {perl}; js_path {folder}; js_import test from test.js;
                 geoip2 {folder}/geo.mmdb {{ $geoip2_country source=$remote_addr country; }}
                 server {{
                    listen 127.0.0.1:{{port}};
                    location /proxy/ {{ proxy_pass http://127.0.0.1:{{upstream}}/; }}
                    {locations}
                 }}",
                folder = folder.path().display(),
            )
            .replace("{dav}", &at("dav")),
            ..Config::default()
        });
        Some(Self {
            nginx,
            _upstream: upstream,
            _folder: folder,
        })
    }
}

/// Returns the entry of a folder whose name has this end.
fn entry_of(folder: &Path, end: &str) -> PathBuf {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| path.display().to_string().ends_with(end);
    paths.find(is_it).unwrap()
}

/// Writes a script that runs the machine's nginx with unpacked libraries, and returns its path.
fn with_libraries(folder: &Path, libraries: &Path) -> PathBuf {
    let script = folder.join("nginx");
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n",
        libraries.display(),
        binary().display()
    );
    write_program(&script, text.as_bytes());
    script
}

/// Returns whether the tested nginx is the one for which Debian's modules are built.
fn is_debians() -> bool {
    binary() == Path::new(DEBIAN) && !is_before((1, 22, 1), "the modules")
}

/// Sends requests on one connection, and returns the records. Each response must have this status, and this
/// text in its header or body.
fn answered(loaded: Loaded, requests: &[(&str, u32, &str)]) -> Vec<Record> {
    let Loaded {
        nginx,
        _upstream,
        _folder,
    } = loaded;
    let records = traced(nginx, |nginx| {
        let mut client = Client::connect(nginx.port);
        for (request, status, part) in requests {
            client.send(format!(
                "{request} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: br\r\n\r\n"
            ));
            let response = client.receive();
            let text = response.header + &String::from_utf8_lossy(&response.body);
            assert_eq!(
                (response.status, text.contains(part)),
                (*status, true),
                "{request}: {text}"
            );
        }
    });
    assert_eq!(records.len(), requests.len());
    for record in &records {
        record.assert_complete();
    }
    records
}

/// Check content of scripts, and scripts in front of an upstream: lua, njs, perl, echo.
#[test]
fn scripts() {
    let Some(loaded) = Loaded::start(
        "location /lua { content_by_lua_block { ngx.sleep(0.06); ngx.say('lua') } }
         location /lua-access { access_by_lua_block { ngx.sleep(0.06) }
             proxy_pass http://127.0.0.1:{upstream}/; }
         location /lua-capture { content_by_lua_block {
             ngx.print(ngx.location.capture('/proxy/wait-40').body) } }
         location /njs { js_content test.hello; }
         location /njs-sub { js_content test.sub; }
         location /perl { perl 'sub { my $r = shift; $r->send_http_header(\"text/plain\");
             $r->print(\"perl\\n\"); return OK; }'; }
         location /echo { echo_sleep 0.06; echo 'echo'; }
         location /echo-location { echo_location /proxy/wait-40; }",
    ) else {
        return;
    };
    let records = answered(
        loaded,
        &[
            ("GET /lua", 200, "lua\n"),
            ("GET /lua-access", 200, "xxx"),
            ("GET /lua-capture", 200, "xxx"),
            ("GET /njs", 200, "njs\n"),
            ("GET /njs-sub", 200, "xxx"),
            ("GET /perl", 200, "perl\n"),
            ("GET /echo", 200, "echo\n"),
            ("GET /echo-location", 200, "xxx"),
        ],
    );
    for slow in [&records[0], &records[6]] {
        let p = &slow.phases;
        let first = p.downstream_response_first_byte_time;
        assert_delay(p.downstream_request_last_byte_time, first, 60);
    }
    let p = &records[1].phases;
    assert_delay(
        p.downstream_request_last_byte_time,
        p.upstream_connect_time,
        60,
    );
    for with_subrequest in [2, 4, 7] {
        let record = &records[with_subrequest];
        assert_eq!(record.subrequests.len(), 1, "{record:#?}");
        let attempt = &record.subrequests[0].upstreams[0];
        let first = attempt.upstream_response_first_byte_time;
        assert_delay(attempt.upstream_request_last_byte_time, first, 40);
    }
}

/// Check that the time in which a script makes a request wait has no name: the delay that limit_req adds can't be
/// distinguished from it.
#[test]
fn waits() {
    let Some(loaded) = Loaded::start(
        "location /lua { rewrite_by_lua_block { ngx.sleep(0.06) } limit_req zone=five burst=9;
             proxy_pass http://127.0.0.1:{upstream}/; }
         limit_req_log_level info;",
    ) else {
        return;
    };
    let records = answered(
        loaded,
        &[("GET /lua", 200, "xxx"), ("GET /lua", 200, "xxx")],
    );
    assert_eq!(records[0].waits.wait_ns, None);
    for record in &records {
        assert_eq!(record.waits.limit_req_delay_ns, None);
    }
    let wait = records[1].waits.wait_ns;
    assert!(wait > Some(60_000_000), "{wait:?}");
    let shares = records[1].waits.time_ns.as_ref().unwrap();
    assert_eq!(Some(shares.wait), wait);
}

/// Check that connections that a script opens itself (a cosocket of lua, a fetch of njs) are no attempts, and
/// take no time from one: an upstream redirects to the scripts.
#[test]
fn own_connections() {
    let Some(loaded) = Loaded::start(
        "location / { proxy_pass http://127.0.0.1:{upstream}; }
         location /njs { js_content test.fetch; }
         location /lua { content_by_lua_block {
             local socket = ngx.socket.tcp()
             assert(socket:connect('127.0.0.1', {upstream}))
             socket:send('GET /wait-40 HTTP/1.0\\r\\n\\r\\n')
             ngx.print(socket:receive('*l'))
         } }",
    ) else {
        return;
    };
    let records = answered(
        loaded,
        &[
            ("GET /accel-lua-x", 200, "HTTP/1.1 200 Told"),
            ("GET /accel-njs-x", 200, "xxx"),
            ("GET /lua", 200, "HTTP/1.1 200 Told"),
            ("GET /njs", 200, "xxx"),
        ],
    );
    for redirected in &records[..2] {
        let attempt = &redirected.upstreams[0];
        assert_eq!(redirected.upstreams.len(), 1);
        let connect = attempt.upstream_connect_time.unwrap();
        let sent = attempt.upstream_request_first_byte_time.unwrap();
        assert!(connect <= sent, "{redirected:#?}");
    }
    for own in &records[2..] {
        assert!(
            own.upstreams.is_empty() && own.subrequests.is_empty(),
            "{own:#?}"
        );
        let p = &own.phases;
        let first = p.downstream_response_first_byte_time;
        assert_delay(p.downstream_request_last_byte_time, first, 40);
    }
}

/// Check filters and content of other modules: headers-more, brotli, geoip2, dav-ext, nchan, modsecurity.
#[test]
fn filters() {
    let Some(loaded) = Loaded::start(
        "location /headers { more_set_headers 'X-Test: yes'; return 200 'headers\\n'; }
         location /brotli { brotli on; brotli_types *; brotli_min_length 1; return 200 'brotli\\n'; }
         location /geo { return 200 'country $geoip2_country'; }
         location /dav/ { root {dav}; dav_methods PUT; dav_ext_methods PROPFIND OPTIONS; }
         location /publish { nchan_publisher; nchan_channel_id test; }
         location /subscribe { nchan_subscriber longpoll; nchan_channel_id test; }
         location /waf { modsecurity on;
             modsecurity_rules 'SecRuleEngine On\nSecRule ARGS:q \"@contains evil\" \"id:1,phase:1,deny,status:403\"';
             proxy_pass http://127.0.0.1:{upstream}/; }",
    ) else {
        return;
    };
    let records = answered(
        loaded,
        &[
            ("GET /headers", 200, "X-Test: yes\n"),
            ("GET /brotli", 200, "Content-Encoding: br\n"),
            ("GET /geo", 200, "country XX"),
            ("OPTIONS /dav/", 200, "PROPFIND"),
            ("POST /publish", 202, ""),
            ("GET /subscribe", 200, ""),
            ("GET /waf?q=good", 200, "xxx"),
            ("GET /waf?q=evil", 403, "Forbidden"),
        ],
    );
    assert_eq!(records[6].upstreams.len(), 1);
    assert!(records[7].upstreams.is_empty());
}
