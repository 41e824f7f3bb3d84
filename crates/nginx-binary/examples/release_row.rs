// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adds a release of nginx to `layouts.txt`, from the debug information of its builds: `make release-row
//! NGINX=FILE`. Nothing is added that the code of one of them contradicts. docs/releasing.md describes it.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use nginx_binary::Identity;
use nginx_binary::build::Build;
use nginx_binary::elf::Elf;
use nginx_binary::elf::debug_file::DebugFiles;
use nginx_binary::elf::debug_file::DebugImages;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files;
use nginx_binary::layout;
use nginx_binary::layout::Layout;
use nginx_binary::layout::choose;
use nginx_binary::layout::wanted::WantedMembers;
use nginx_binary::layout::witness;

/// The built-in table.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/layouts.txt");

/// The pages that name the newest release, and the words before it.
const PAGES: [(&str, &str); 2] = [
    (
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"),
        "1.10.0 to ",
    ),
    (
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compatibility.md"),
        "1.10.0 or after ",
    ),
];

/// Opens debug files.
struct AllFiles;

impl Files for AllFiles {
    fn stated(&self, path: &Path) -> Result<File> {
        Ok(File::open(path)?)
    }

    fn beside(&self, path: &Path) -> Option<File> {
        File::open(path).ok()
    }

    fn beneath(&self, folder: &Path, path: &Path) -> Option<File> {
        File::open(folder.join(path)).ok()
    }
}

fn main() -> Result<()> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(
        !files.is_empty(),
        "name the builds of the release: make release-row NGINX=\"FILE...\""
    );
    let builds = files.iter().map(|file| {
        let read = read(file);
        read.with_context(|| format!("failed to read {}", file.display()))
    });
    let builds = builds.collect::<Result<Vec<_>>>()?;
    let text = fs::read_to_string(TABLE)?;
    let changed = layout::with_release(&text, &builds)?;
    fs::write(TABLE, &changed)?;
    let added = changed
        .lines()
        .filter(|line| line.starts_with("nginx "))
        .count();
    let before = text
        .lines()
        .filter(|line| line.starts_with("nginx "))
        .count();
    let version = builds[0].0.version;
    match added - before {
        0 => println!("nginx {version}: no struct has changed"),
        sections => println!("nginx {version}: {sections} new sections"),
    }
    update_pages(&text, &changed)
}

/// Writes the newest release of the table into the pages that name it.
fn update_pages(before: &str, after: &str) -> Result<()> {
    let [before, after] = [before, after].map(layout::newest_release);
    let (before, after) = (before?.to_string(), after?.to_string());
    for (page, around) in PAGES {
        let text = fs::read_to_string(page)?;
        let place = format!("{around}{before}");
        ensure!(text.contains(&place), "{page} does not say \"{place}\"");
        fs::write(page, text.replace(&place, &format!("{around}{after}")))?;
    }
    Ok(())
}

/// Reads the build and the layout of a file, and checks the layout against its code.
fn read(path: &Path) -> Result<(Build, Layout)> {
    let image = Image::read(&File::open(path)?)?;
    let elf = Elf::parse(&image)?;
    let identity = Identity::read(&elf)?;
    let path = path.canonicalize()?;
    let debug_images = DebugImages::new(&path, &elf, None, &AllFiles);
    let debug_files = DebugFiles::new(&debug_images, &elf);
    let wanted = wanted(&identity.build)?;
    let chosen = choose::read_debug_info(&path, &elf, &identity, &debug_files, &wanted)?;
    let Some(chosen) = chosen else {
        bail!("it has no debug information, nor has a debug file of its build");
    };
    let fit = chosen.fit;
    ensure!(
        fit.differ.is_empty(),
        "its code has members elsewhere than its debug information: {}",
        witness::path_names(&fit.differ)
    );
    let build = identity.build;
    println!(
        "{build}: {} of {} members are where its code has them",
        fit.agree.len(),
        fit.asked()
    );
    if !fit.unknown.is_empty() {
        println!("  not shown: {}", witness::path_names(&fit.unknown));
    }
    Ok((build, chosen.layout))
}

/// Returns the members of the table: those of the newest layout with the options of a build.
fn wanted(build: &Build) -> Result<WantedMembers> {
    let known = layout::known_layouts(build)?;
    let (_, newest) = known
        .last()
        .context("no layout is known for these options")?;
    let structs = newest.structs.iter();
    let structs = structs.map(|(name, members)| (name.clone(), members.keys().cloned().collect()));
    Ok(WantedMembers {
        structs: structs.collect(),
    })
}
