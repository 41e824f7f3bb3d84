// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the generated schemas of what the views write as JSON. `make docs` writes them.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::Path;

use ngx_bpf_views::compare::Comparison;
use ngx_bpf_views::summary::Numbers;
use schemars::schema_for;

/// Check that the committed schemas are those of the code.
#[test]
fn committed() {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    for (name, schema) in [
        ("summary.json", schema_for!(Numbers<'_>)),
        ("comparison.json", schema_for!(Comparison)),
    ] {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = schemas.join(name);
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            known, text,
            "{name} is not what the code says, run `make docs`"
        );
    }
}
