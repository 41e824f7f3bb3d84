// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property tests: a file that is cut, or has bytes changed anywhere, is an error at worst.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use nginx_binary::Binary;
use nginx_binary::Options;
use nginx_binary::build::Build;
use nginx_binary::elf::Elf;
use nginx_binary::elf::debug_file::DebugFiles;
use nginx_binary::elf::debug_file::DebugImages;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files;
use nginx_binary::layout::choose;
use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::layout::wanted::WantedMembers;
use nginx_binary::sites::ProbeSites;
use proptest::collection;
use proptest::prelude::*;
use tempfile::TempDir;

/// A program with the symbols, the module and a variable of nginx, so that every step has something to read.
const SOURCE: &str = r#"
    typedef struct { void *data; long len; } ngx_str_t;
    typedef struct ngx_connection_s { void *data; ngx_str_t addr_text; unsigned ssl:1; int fd[4]; } ngx_connection_t;
    struct ngx_http_request_s { ngx_connection_t *connection; long start; };
    struct module { long index[5], version; char *signature; void *context, *commands; }
        ngx_http_core_module = { .version = 1022001, .signature = "8,4,8,0011111111010111001111111111111111" };
    static char name[] = "nginx/1.22.1";
    __attribute__((noinline)) long handler(struct ngx_http_request_s *r) { return r->connection->fd[1]; }
    struct { long len; char *name; void *set, *get; long data, flags, index; } variables[] = {
        { 11, "request_uri", 0, handler, 8 }, { 3, "uri", 0, handler, 16 } };
    __attribute__((noinline)) void ngx_http_init_connection(ngx_connection_t *c) { c->data = name; }
    static __attribute__((noinline)) void body(void *r) { __asm__("push %rax"); (void)r; }
    void ngx_http_free_request(void *r, long rc) { body(r); (void)rc; }
    void *pointers[] = { ngx_http_init_connection, ngx_http_free_request };
    int main(int argc, char **argv) { body(argv); return argc; }
"#;

/// Opens nothing.
struct NoFiles;

impl Files for NoFiles {
    fn stated(&self, path: &Path) -> anyhow::Result<std::fs::File> {
        anyhow::bail!("{path:?}")
    }

    fn beside(&self, _: &Path) -> Option<std::fs::File> {
        None
    }

    fn beneath(&self, _: &Path, _: &Path) -> Option<std::fs::File> {
        None
    }
}

/// Compiles the program, once.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let source = match cfg!(target_arch = "x86_64") {
            true => SOURCE.to_owned(),
            false => SOURCE.replace("push %rax", "nop"),
        };
        std::fs::write(folder.path().join("a.c"), source).unwrap();
        let status = Command::new("cc")
            .args([
                "-O2",
                "-g",
                "-fPIE",
                "-pie",
                "-rdynamic",
                "-w",
                "-o",
                "a",
                "a.c",
            ])
            .current_dir(folder.path())
            .status();
        assert!(status.unwrap().success());
        std::fs::read(folder.path().join("a")).unwrap()
    })
}

/// Returns the members that the program has.
fn wanted() -> WantedMembers {
    let structs = [
        ("ngx_str_t", vec!["len", "data"]),
        ("ngx_connection_s", vec!["fd", "addr_text"]),
        ("ngx_http_request_s", vec!["connection"]),
    ];
    let structs = structs.map(|(name, members)| {
        let members = members.into_iter().map(str::to_owned);
        (name.to_owned(), members.collect())
    });
    WantedMembers {
        structs: structs.into(),
    }
}

/// Reads all that can be read of a file: the binary as a whole, and each of its parts.
///
/// # Panics
///
/// Panics when the whole and a part contradict each other.
fn read(bytes: &[u8]) -> anyhow::Result<Binary> {
    let path = Path::new("/nowhere/nginx");
    let image = Image::read_up_to(bytes.len() as u64, bytes)?;
    let read = Binary::read(path, &image, &Options::default(), &wanted(), &NoFiles);
    let parts = Elf::parse(&image).map(|elf| {
        let debug_images = DebugImages::new(path, &elf, None, &NoFiles);
        let debug_files = DebugFiles::new(&debug_images, &elf);
        let layout = choose::from_debug_info(path, &elf, &debug_files, &wanted());
        (Build::identify(&elf), layout, ProbeSites::locate(&elf))
    });
    let (build, layout, sites) = match (&read, parts) {
        (Ok(_), parts) => parts.unwrap(),
        (Err(refused), Ok((build, ..))) => {
            let identity = refused.identity.as_ref();
            assert_eq!(
                identity.map(|identity| &identity.build),
                build.ok().as_ref()
            );
            return Err(read.unwrap_err().error);
        }
        (Err(refused), Err(_)) => {
            assert!(refused.identity.is_none());
            return Err(read.unwrap_err().error);
        }
    };
    let read = read.map_err(|refused| refused.error)?;
    assert_eq!(read.identity.build, build.unwrap());
    if let Some(layout) = layout.unwrap() {
        assert_eq!(read.layout.layout, layout);
        assert_eq!(read.layout.source, LayoutOrigin::Dwarf);
    }
    let offsets = |sites: &ProbeSites| -> Vec<u64> {
        sites.sites.iter().map(|site| site.file_offset).collect()
    };
    assert_eq!(offsets(&read.probe_sites), offsets(&sites.unwrap()));
    Ok(read)
}

/// Check that the program that is broken below is read in full when it is whole.
#[test]
fn whole() {
    let read = read(program()).unwrap();
    assert_eq!(read.identity.build.version.to_string(), "1.22.1");
    assert_eq!(read.layout.source, LayoutOrigin::Dwarf);
    assert_eq!(read.layout.layout.structs.len(), 3);
    assert_eq!(read.probe_sites.sites.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Check that a file that is cut anywhere does not cause a panic.
    #[test]
    fn cut(at: prop::sample::Index) {
        let program = program();
        let _ = read(&program[..at.index(program.len())]);
    }

    /// Check that bytes that are changed anywhere do not cause a panic.
    #[test]
    fn changed(changes in collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = program().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }

    /// Check the same in the headers of the file and its segments, and in those of its sections.
    #[test]
    fn changed_headers(changes in collection::vec((0..4096_usize, any::<u8>()), 1..6), is_end: bool) {
        let mut bytes = program().to_vec();
        for (at, byte) in changes {
            let at = if is_end { bytes.len() - 1 - at % 2048 } else { at % 1024 };
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }
}
