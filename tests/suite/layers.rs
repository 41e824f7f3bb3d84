// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of the modules in src/, held against what they import.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::common::sources::project;
use super::common::sources::sources;

/// The order: each layer, and the layers that it may import, all of which stand below it. A layer is a
/// file or a folder of src/; of two that match the longer name counts.
const LAYERS: [(&str, &[&str]); 14] = [
    ("main", &["cli", "commands", "host"]),
    ("lib", &[]),
    (
        "commands",
        &[
            "cli", "pipeline", "metrics", "otlp", "output", "follow", "attach", "host",
        ],
    ),
    ("cli", &["metrics", "otlp", "output", "attach", "host"]),
    (
        "pipeline",
        &[
            "metrics", "otlp", "output", "follow", "attach", "decode", "counts", "bpf", "host",
        ],
    ),
    ("metrics", &["counts", "host"]),
    ("otlp", &["host"]),
    ("output", &["host"]),
    ("follow", &["attach", "host"]),
    ("attach", &["bpf", "host"]),
    ("decode", &["bpf"]),
    ("counts", &[]),
    ("bpf", &[]),
    ("host", &[]),
];

/// The only layers and files that may name libbpf.
const LIBBPF: [&str; 2] = ["attach", "decode/ring"];

/// Check that no module imports what its layer may not, and that every module has a layer.
#[test]
fn order() {
    let mut wrong = Vec::new();
    let all = imports();
    /* These are there: the test fails when it does not see imports. */
    for (file, import) in [
        ("main", "cli"),
        ("pipeline", "decode"),
        ("follow", "attach"),
    ] {
        let is_in = |name: &String| name.split('/').next() == Some(file);
        let is_seen = |names: &BTreeSet<String>| names.iter().any(|name| name.starts_with(import));
        let is_seen = all
            .iter()
            .any(|(name, names)| is_in(name) && is_seen(names));
        assert!(is_seen, "{file} is not seen to import {import}");
    }
    for (file, imports) in all {
        let Some((layer, allowed)) = layer(&file) else {
            wrong.push(format!("{file} is in no layer"));
            continue;
        };
        for import in imports {
            let imported = self::layer(&import).map_or("no layer", |(imported, _)| imported);
            if imported != layer && !allowed.contains(&imported) {
                wrong.push(format!(
                    "{file} imports {import}: {layer} may not import {imported}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Check that layers may import only what stands below them in the table, and that no files import each
/// other in a circle. A declaration of a child (`mod x;`) is not an import.
#[test]
fn circles() {
    let place = |layer: &str| LAYERS.iter().position(|(name, _)| *name == layer).unwrap();
    for (layer, allowed) in LAYERS {
        assert!(
            allowed.iter().all(|import| place(import) > place(layer)),
            "{layer}"
        );
    }
    let imports = imports();
    let mut wrong = Vec::new();
    for file in imports.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = imports[file].iter().collect();
        while let Some(import) = next.pop() {
            if seen.insert(import) {
                next.extend(imports.get(import).into_iter().flatten());
            }
        }
        if seen.contains(file) {
            wrong.push(file);
        }
    }
    assert!(wrong.is_empty(), "circles: {wrong:?}");
}

/// Check that only the layers at the kernel name libbpf, and that src/ can be taken in at a glance.
#[test]
fn outside() {
    let mut found = 0;
    for (file, path) in files() {
        let text = fs::read_to_string(path).unwrap();
        let is_at_kernel = LIBBPF.iter().any(|layer| file.starts_with(layer));
        let is_named = paths(&text).any(|path| path.split("::").any(|name| name == "libbpf_rs"));
        assert!(is_at_kernel || !is_named, "{file} names libbpf");
        found += usize::from(is_named);
    }
    assert!(found > 0, "no file is seen to name libbpf");
    let entries = fs::read_dir(root()).unwrap().count();
    assert!(entries <= 16, "{entries} entries in src/");
}

/// Check that the libraries depend on nothing that needs clang, the command line, threads or /proc.
#[test]
fn libraries() {
    let crates = project().join("crates");
    for name in ["nginx-binary", "record"] {
        let text = fs::read_to_string(crates.join(name).join("Cargo.toml")).unwrap();
        let (_, dependencies) = text.split_once("[dependencies]").unwrap();
        for foreign in [
            "libbpf",
            "clap",
            "crossbeam",
            "ctrlc",
            "signal-hook",
            "rustix",
            "libc",
        ] {
            assert!(!dependencies.contains(foreign), "{name} needs {foreign}");
        }
    }
}

/// The layer of a file, and what it may import.
fn layer(file: &str) -> Option<(&'static str, &'static [&'static str])> {
    let is_in = |name: &str| {
        let rest = file.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let matching = LAYERS.into_iter().filter(|(name, _)| is_in(name));
    matching.max_by_key(|(name, _)| name.len())
}

/// The folder of the sources.
fn root() -> PathBuf {
    project().join("src")
}

/// All sources by module: `follow/mod.rs` is `follow`.
fn files() -> BTreeMap<String, PathBuf> {
    let files = sources("src").into_iter().map(|path| {
        let name = path.strip_prefix(root()).unwrap().with_extension("");
        let name = name.display().to_string();
        (name.strip_suffix("/mod").unwrap_or(&name).to_owned(), path)
    });
    files.collect()
}

/// The files that each file imports: by paths in code that begin with `crate`, `super` or the name of a
/// child, in imports and in expressions.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let known: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let imports = files.iter().map(|(file, path)| {
        let parent = file.rsplit_once('/').map_or("", |(parent, _)| parent);
        /* Tests stand at the end: there `super` is the file itself. */
        let text = fs::read_to_string(path).unwrap();
        let (code, tests) = text.split_once("mod tests {").unwrap_or((&text, ""));
        let imports = paths(code).map(|path| resolve(file, parent, path, &known));
        let imports = imports.chain(paths(tests).map(|path| resolve(file, file, path, &known)));
        let imports: BTreeSet<String> = imports.flatten().filter(|import| import != file).collect();
        (file.clone(), imports)
    });
    imports.collect()
}

/// The paths in a text, without those in comments.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let lines = text.lines();
    let code = lines.map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(move |line| line.split(move |c| !is_path(c)))
}

/// The file that a path leads to, as seen from a file with this parent.
fn resolve(file: &str, parent: &str, path: &str, known: &BTreeSet<&str>) -> Option<String> {
    let (first, rest) = path.split_once("::")?;
    let (mut module, names) = match first {
        "crate" | "ngx_bpf" => (String::new(), rest),
        "super" => (parent.to_owned(), rest),
        _ => (file.to_owned(), path),
    };
    let mut found = (first == "super").then(|| module.clone());
    for name in names.split("::") {
        let child = [module.as_str(), name].join("/");
        module = child.trim_start_matches('/').to_owned();
        if !known.contains(module.as_str()) {
            break;
        }
        found = Some(module.clone());
    }
    found.filter(|found| known.contains(found.as_str()))
}
