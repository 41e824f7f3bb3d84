// SPDX-License-Identifier: MIT OR Apache-2.0
//! `redirects` of streams.

use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tls;
use crate::suite::common::tool::Tool;
use crate::suite::root::redirects;
use crate::suite::root::redirects::STREAMS;
use crate::suite::root::redirects::assert_streams;

/// Check that each stream of HTTP/3 has its own number.
#[test]
fn streams() {
    if http3::is_missing() {
        return;
    }
    let http = redirects::HTTP.replace("{port};", "{port} quic;");
    let http = [tls::DIRECTIVES, &http.replace("{chain}", "")].concat();
    let nginx = Nginx::prepared(&http, 9, tls::certificate);
    nginx.file("index.html", b"index\n");
    let are_known = redirects::are_known(&nginx);
    let tool = Tool::trace(nginx.pid());
    let mut client = Http3::connect(nginx.port);
    let ids = || (0..).step_by(4);
    for (id, (uri, _)) in ids().zip(STREAMS) {
        client.get(id, uri);
    }
    client.receive(ids().take(STREAMS.len()));
    client.close();
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_streams(&ended.records(), are_known);
}
