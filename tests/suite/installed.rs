// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that `make install` installs.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::common::sources::project;
use super::common::tool::PROGRAM;

/// Returns the files that links of a page in Markdown lead to, but not those of the web.
fn linked(page: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(page).unwrap();
    let links = text.split("](").skip(1).filter_map(|rest| {
        let link = rest.split([')', '#']).next()?;
        let is_file = !link.is_empty() && !link.contains(':');
        is_file.then(|| page.parent().unwrap().join(link))
    });
    links.collect()
}

/// Check that links of the installed pages lead to installed files, and that the folder of layouts is
/// there.
#[test]
fn links() {
    let root = TempDir::new().unwrap();
    let mut make = Command::new("make");
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(variable);
    }
    make.current_dir(project()).args(["-s", "install"]);
    make.args([
        format!("PROGRAM={PROGRAM}"),
        format!("DESTDIR={}", root.path().display()),
        "PREFIX=/usr".to_owned(),
    ]);
    let output = make.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let pages = root.path().join("usr/share/doc/ngx-bpf");
    let mut links = 0;
    for page in [
        pages.clone(),
        pages.join("examples"),
        pages.join("examples/pipelines"),
    ]
    .iter()
    .flat_map(|folder| fs::read_dir(folder).unwrap())
    {
        let page = page.unwrap().path();
        if page.extension().is_none_or(|kind| kind != "md") {
            continue;
        }
        for file in linked(&page) {
            assert!(file.exists(), "{page:?} links to {file:?}");
            links += 1;
        }
    }
    assert!(links > 40, "{links}");
    let layouts = root.path().join("usr/share/ngx-bpf/layouts/README");
    assert!(layouts.is_file());
}
