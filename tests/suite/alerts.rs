// SPDX-License-Identifier: MIT OR Apache-2.0
//! The alerts for Prometheus, tested by its promtool, and the form of the dashboards.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

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

/// Check the panels of the dashboards: each has an id and a place of its own, a description and a query for what it shows,
/// and the variables of its queries exist.
#[test]
fn dashboards() {
    for dashboard in [
        include_str!("../../packaging/grafana/ngx-bpf.json"),
        include_str!("../../packaging/grafana/ngx-bpf-otel.json"),
    ] {
        let dashboard: Value = serde_json::from_str(dashboard).unwrap();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let mut names: Vec<_> = variables
            .iter()
            .map(|variable| format!("${}", variable["name"].as_str().unwrap()))
            .collect();
        names.push("$__rate_interval".to_owned());
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                assert!(x < 24, "{panel}");
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{panel}");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].is_string(), "{panel}");
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let used = query.split('$').skip(1);
                let ends = |c: char| !c.is_alphanumeric() && c != '_';
                for name in used.map(|rest| rest.split(ends).next().unwrap()) {
                    assert!(names.contains(&format!("${name}")), "{query}");
                }
            }
        }
    }
}
