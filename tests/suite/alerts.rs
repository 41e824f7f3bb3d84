// SPDX-License-Identifier: MIT OR Apache-2.0
//! The alerts for Prometheus, tested by its promtool.

use std::path::Path;
use std::process::Command;

/// The folder of the alerts.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus");

/// Check that promtool accepts the alerts, that their tests pass, and that each alert has one.
#[test]
fn tested() {
    let alerts = include_str!("../../packaging/prometheus/alerts.yml");
    let tests = include_str!("../../packaging/prometheus/alerts_test.yml");
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        count += 1;
    }
    assert!(count >= 10, "{count} alerts");
    if !Path::new("/usr/bin/promtool").exists() {
        println!("SKIP this machine: promtool is not installed");
        return;
    }
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new("/usr/bin/promtool")
            .args(args)
            .current_dir(FOLDER)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(output.status.success(), "{args:?}: {printed}");
    }
}
