// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests hold every record that they read against docs/schema/record.json (`Line::parse()`). That the
//! schema and the tables of docs/fields.md follow from the record is checked by `crates/record`.

use serde_json::Value;
use serde_json::json;

use super::common::record::Line;

/// Check that a line that is not a record, or has a key that the schema does not name, is refused.
#[test]
fn refused() {
    let lost = json!({"type": "lost", "time": "2026-11-22T17:17:57.972980760Z", "count": 1,
                      "cause": "ring_full"});
    Line::parse(&lost.to_string());
    let changes: [(&str, Value); 5] = [
        ("type", "request".into()),
        ("time", "2026-11-22T17:17:57Z".into()),
        ("count", 0.into()),
        ("cause", "bad_luck".into()),
        ("new", 1.into()),
    ];
    for (key, value) in changes {
        let mut broken = lost.clone();
        broken[key] = value;
        let result = std::panic::catch_unwind(|| Line::parse(&broken.to_string()));
        assert!(result.is_err(), "{broken}");
    }
}
