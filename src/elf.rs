// SPDX-License-Identifier: MIT OR Apache-2.0
//! One nginx binary: its build id, which build of nginx it is, and where its exported functions
//! lie. Read whole and within bounds; nothing in it is trusted, nothing of it is run.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use object::Object as _;
use object::ObjectSection as _;
use object::ObjectSegment as _;
use object::ObjectSymbol as _;
use object::SegmentFlags;
use object::elf::PF_X;

use crate::layout::Build;
use crate::version::Version;

/// A static nginx with all its libraries has about 30 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The longest function that is looked at.
const FUNCTION_BYTES_MAX: u64 = 1 << 16;

/// The module that every nginx with http has; exported, as all globals are (`-Wl,-E`).
const HTTP_CORE_MODULE: &str = "ngx_http_core_module";

/// Where `ngx_module_t` has `version`, in every release since 1.9.11.
const MODULE_VERSION: u64 = 40;

/// Where it has `signature`.
const MODULE_SIGNATURE: u64 = 48;

/// Forks that keep nginx's version number and not its structs.
const FORKS: [&str; 4] = ["openresty", "Tengine", "freenginx", "Angie"];

/// What has nginx's modules, and its name nowhere.
const UNNAMED_FORK: &str = "unnamed-fork";

/// Longer than any `NGX_MODULE_SIGNATURE`.
const SIGNATURE_BYTES_MAX: usize = 64;

/// The bytes of a binary. Kept apart from `Elf`, which borrows them.
pub struct Image(Vec<u8>);

impl Image {
    /// Reads the whole file. Fails when it is larger than any nginx.
    pub fn read(file: &File) -> Result<Self> {
        let size = file.metadata()?.len();
        ensure!(size <= FILE_BYTES_MAX, "{size} bytes are too many");
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// An exported function.
#[derive(Debug)]
pub struct Function<'data> {
    /// Where it begins in the file: what a uprobe's offset counts from.
    pub file_offset: u64,
    /// Where it begins in the process, as linked.
    pub address: u64,
    /// Its instructions, to the end that the symbol states.
    pub code: &'data [u8],
}

/// A parsed binary.
pub struct Elf<'data>(object::File<'data>);

impl<'data> Elf<'data> {
    /// Fails when this is no ELF file for the machine that we run on.
    pub fn parse(image: &'data Image) -> Result<Self> {
        let file = object::File::parse(image.0.as_slice()).context("no ELF file")?;
        ensure!(
            file.architecture() == object::Architecture::X86_64,
            "built for {:?}: only x86-64 is known",
            file.architecture()
        );
        Ok(Self(file))
    }

    /// The build id in hex. `None` when it was linked without one.
    pub fn build_id(&self) -> Option<String> {
        let id = self.0.build_id().ok().flatten()?;
        let mut hex = String::new();
        for byte in id {
            let _ = write!(hex, "{byte:02x}");
        }
        Some(hex)
    }

    /// Which nginx this is. Fails when it is none, or exports nothing.
    pub fn build(&self) -> Result<Build> {
        ensure!(
            self.0.dynamic_symbols().next().is_some(),
            "it exports no symbols (a static link), so there is nothing to find its functions by"
        );
        let module = self
            .symbol(HTTP_CORE_MODULE)
            .with_context(|| format!("not nginx with http: it has no {HTTP_CORE_MODULE}"))?
            .address();
        let version = self.word(module + MODULE_VERSION)?;
        let pointer = self.pointer(module + MODULE_SIGNATURE)?;
        let bytes = self.bytes(pointer, SIGNATURE_BYTES_MAX)?;
        let signature = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        ensure!(
            !signature.is_empty() && signature.iter().all(u8::is_ascii_graphic),
            "{HTTP_CORE_MODULE} has no signature"
        );
        let version = Version::from_number(version);
        Ok(Build {
            fork: self.fork(version)?,
            version,
            signature: String::from_utf8_lossy(signature).into_owned(),
            has_ssl: self.symbol("ngx_ssl_create_connection").is_some(),
            has_quic: self.symbol("ngx_quic_run").is_some(),
        })
    }

    /// The name that a fork calls itself by: text that begins with one of `FORKS`, or anything
    /// when nginx's own name is nowhere.
    fn fork(&self, version: Version) -> Result<Option<String>> {
        let own = format!("\0nginx/{version}");
        let mut is_nginx = false;
        for segment in self.0.segments() {
            let data = segment.data()?;
            for fork in FORKS {
                let name = format!("\0{fork}/");
                if let Some(at) = find(data, name.as_bytes()) {
                    let text = data[at + 1..].iter().take(SIGNATURE_BYTES_MAX);
                    let text: Vec<u8> = text.copied().take_while(u8::is_ascii_graphic).collect();
                    return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
                }
            }
            is_nginx |= find(data, own.as_bytes()).is_some();
        }
        Ok((!is_nginx).then(|| UNNAMED_FORK.to_owned()))
    }

    /// A section, inflated where it is compressed. `None` when there is none, or nothing of it in
    /// this file. Fails when it claims to be larger than any nginx's.
    pub fn section(&self, name: &str) -> Result<Option<Cow<'data, [u8]>>> {
        let Some(section) = self.0.section_by_name(name) else {
            return Ok(None);
        };
        let context = || format!("failed to read section {name}");
        let data = section.compressed_data().with_context(context)?;
        let size = data.uncompressed_size;
        ensure!(
            size <= FILE_BYTES_MAX,
            "section {name} claims to have {size} bytes"
        );
        let data = data.decompress().with_context(context)?;
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// The name in `.gnu_debuglink`: of the file that the debug information was moved to.
    pub fn debug_link(&self) -> Option<String> {
        let (name, _) = self.0.gnu_debuglink().ok().flatten()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// An exported function. Fails when it is not exported, has no size, or is not in code.
    pub fn function(&self, name: &str) -> Result<Function<'data>> {
        let symbol = self
            .symbol(name)
            .with_context(|| format!("{name} is not exported"))?;
        let size = symbol.size().min(FUNCTION_BYTES_MAX);
        ensure!(size > 0, "{name} has no size");
        for segment in self.0.segments() {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                continue;
            };
            let (file_start, file_size) = segment.file_range();
            let Some(into) = symbol.address().checked_sub(segment.address()) else {
                continue;
            };
            if into >= file_size {
                continue;
            }
            ensure!(p_flags.0 & PF_X.0 != 0, "{name} is not in executable code");
            let code = segment
                .data_range(symbol.address(), size)?
                .with_context(|| format!("{name} ends outside its segment"))?;
            return Ok(Function {
                file_offset: file_start + into,
                address: symbol.address(),
                code,
            });
        }
        bail!("{name} is not in the file");
    }

    /// All pointers in data: where each is, and where it points. Those that the dynamic linker puts
    /// there (`R_*_RELATIVE`); in a program that is linked to fixed addresses, every word that could
    /// be one.
    pub fn pointers(&self) -> impl Iterator<Item = (u64, u64)> {
        let relocations = self.0.dynamic_relocations().into_iter().flatten();
        let relative = relocations.map(|(at, to)| (at, to.addend().cast_unsigned()));
        let is_fixed = self.0.kind() == object::ObjectKind::Executable;
        let data = self.0.segments().filter(move |segment| {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                return false;
            };
            is_fixed && p_flags.0 & PF_X.0 == 0
        });
        let words = data.flat_map(|segment| {
            let words = segment.data().unwrap_or_default().chunks_exact(8);
            let address = segment.address();
            words.zip(0..).filter_map(move |(word, n)| {
                let word = u64::from_le_bytes(word.try_into().ok()?);
                Some((address.checked_add(n * 8)?, word))
            })
        });
        relative.chain(words)
    }

    /// Instructions from an address on, to the end of their segment. `None` where there is no code.
    pub fn code(&self, address: u64) -> Option<&'data [u8]> {
        self.0.segments().find_map(|segment| {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                return None;
            };
            let into = usize::try_from(address.checked_sub(segment.address())?).ok()?;
            let is_code = p_flags.0 & PF_X.0 != 0;
            segment.data().ok()?.get(into..).filter(|_| is_code)
        })
    }

    /// A symbol of `.dynsym`, defined here.
    fn symbol(&self, name: &str) -> Option<object::Symbol<'data, '_>> {
        self.0
            .dynamic_symbols()
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
    }

    /// At least one byte and at most `limit`, from an address as linked.
    pub fn bytes(&self, address: u64, limit: usize) -> Result<&'data [u8]> {
        for segment in self.0.segments() {
            let Some(into) = address.checked_sub(segment.address()) else {
                continue;
            };
            let data = segment.data()?;
            let start = usize::try_from(into)?;
            if start < data.len() {
                let end = data.len().min(start + limit);
                return Ok(&data[start..end]);
            }
        }
        bail!("address {address:#x} is not in the file");
    }

    /// Eight bytes of data.
    pub fn word(&self, address: u64) -> Result<u64> {
        let bytes = self.bytes(address, 8)?;
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }

    /// A pointer in data: what the dynamic linker will put there (`R_*_RELATIVE`), else the word.
    fn pointer(&self, address: u64) -> Result<u64> {
        let relocation = self
            .0
            .dynamic_relocations()
            .into_iter()
            .flatten()
            .find(|(at, _)| *at == address);
        match relocation {
            Some((_, relocation)) => Ok(relocation.addend().cast_unsigned()),
            None => self.word(address),
        }
    }
}

/// Where `needle` is first.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::Elf;
    use super::Image;

    /// The image of a file with these bytes.
    fn image(bytes: &[u8]) -> Image {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Image::read(&file).unwrap()
    }

    /// Check that what is no ELF file is an error.
    #[test]
    fn no_elf() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
            assert!(Elf::parse(&image(bytes)).is_err());
        }
    }

    /// Check that an ELF file that is not nginx says so, and that cutting it anywhere is no panic.
    #[test]
    fn not_nginx() {
        let file = File::open("/proc/self/exe").unwrap();
        let whole = Image::read(&file).unwrap();
        let elf = Elf::parse(&whole).unwrap();
        assert!(elf.build().is_err());
        assert!(elf.function("ngx_http_free_request").is_err());
        for size in (0..whole.0.len()).step_by(whole.0.len() / 64) {
            let cut = Image(whole.0[..size].to_vec());
            if let Ok(elf) = Elf::parse(&cut) {
                assert!(elf.build().is_err());
                let _ = elf.build_id();
            }
        }
    }
}
