// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a binary: read whole, and never more than any nginx has. What is in them is
//! `elf.rs`'s.

use std::fs::File;
use std::io::Read;
use std::io::Seek as _;
use std::path::Path;

use anyhow::Result;
use anyhow::ensure;

use crate::follow::foreign;

/// A static nginx with all its libraries has about 30 MB.
pub const BYTES_MAX: u64 = 256 << 20;

/// The bytes of a binary, which `Elf` borrows.
pub struct Image(Vec<u8>);

impl Image {
    /// Reads a whole file that the person who runs this has named.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&foreign::own(path)?)
    }

    /// Reads the whole file, wherever it was read to before. Fails when it is larger than any nginx.
    pub fn read(mut file: &File) -> Result<Self> {
        let size = file.metadata()?.len();
        ensure!(size <= BYTES_MAX, "{size} bytes are too many");
        file.rewind()?;
        Self::read_up_to(BYTES_MAX, file)
    }

    /// Reads to the end. Fails when that does not come within `limit`.
    pub fn read_up_to(limit: u64, reader: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes)?;
        let size = bytes.len() as u64;
        ensure!(size <= limit, "more than {limit} bytes");
        Ok(Self(bytes))
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Image;

    /// Check that the limit is what may be read, and no byte more.
    #[test]
    fn limit() {
        assert_eq!(Image::read_up_to(3, &b"abc"[..]).unwrap().bytes(), b"abc");
        assert!(Image::read_up_to(2, &b"abc"[..]).is_err());
    }

    /// Check that what is not a file is refused.
    #[test]
    fn not_a_file() {
        for path in ["/", "/dev/zero", "/no/such/file"] {
            assert!(Image::open(Path::new(path)).is_err(), "{path}");
        }
    }
}
