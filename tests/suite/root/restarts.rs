// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx that is started again and again.

use crate::suite::common::client::Client;
use crate::suite::common::program::kill;
use crate::suite::common::record::assert_equal;
use crate::suite::common::yard::Yard;

/// Check that `--wait` traces an nginx after each restart, as by `systemctl restart`: its binary is
/// dropped when its last process has ended, which may be while the processes are read that run it
/// again.
#[test]
fn restarted() {
    let yard = Yard::new();
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_for_message("waiting for nginx to start");
    let mut logged = Vec::new();
    for _ in 0..20 {
        let nginx = yard.nginx();
        tool.wait_ready(1);
        Client::connect(nginx.port).get("/");
        logged.extend(nginx.quit());
    }
    kill("INT", tool.child());
    assert_equal(&tool.wait().records(), &logged);
}
