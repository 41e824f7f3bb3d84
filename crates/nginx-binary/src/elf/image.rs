// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of a binary, read into memory and limited in size. `Elf` interprets them.

use std::fs::File;
use std::io::Read;
use std::io::Seek as _;

use anyhow::Result;
use anyhow::ensure;

use crate::elf::limits::FILE_BYTES_MAX;

/// The bytes of a binary, which `Elf` borrows.
pub struct Image(Vec<u8>);

impl Image {
    /// Reads a whole file from its beginning, wherever it was read to before.
    ///
    /// # Errors
    ///
    /// Fails when the file can't be read, or has more than [`FILE_BYTES_MAX`] bytes.
    pub fn read(mut file: &File) -> Result<Self> {
        let size = file.metadata()?.len();
        ensure!(
            size <= FILE_BYTES_MAX,
            "its {size} bytes exceed the limit of {FILE_BYTES_MAX}"
        );
        file.rewind()?;
        Self::read_up_to(FILE_BYTES_MAX, file)
    }

    /// Reads to the end of `reader`.
    ///
    /// # Errors
    ///
    /// Fails when reading fails, or when there are more than `limit` bytes.
    pub fn read_up_to(limit: u64, reader: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes)?;
        let size = bytes.len() as u64;
        ensure!(size <= limit, "it has more than {limit} bytes");
        Ok(Self(bytes))
    }

    /// Returns all bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::Image;

    /// Check that the limit is what may be read, and no byte more.
    #[test]
    fn limit() {
        assert_eq!(Image::read_up_to(3, &b"abc"[..]).unwrap().bytes(), b"abc");
        assert!(Image::read_up_to(2, &b"abc"[..]).is_err());
    }

    /// Check that a folder and an endless file are errors.
    #[test]
    fn not_a_file() {
        for path in ["/", "/dev/zero"] {
            assert!(Image::read(&File::open(path).unwrap()).is_err(), "{path}");
        }
    }
}
