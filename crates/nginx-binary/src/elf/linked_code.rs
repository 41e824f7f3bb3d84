// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code of a binary as it was linked, by which a binary without a build id and the unstripped file that it
//! was made from are recognized as the same build.

use object::Object as _;
use object::ObjectSegment as _;

use crate::elf::Elf;
use crate::elf::is_code;

/// The bytes of the file header of ELF, and of each program header.
const HEADER_BYTES: [usize; 2] = [64, 56];

/// The executable segments of a binary: the address and the bytes of each, without the headers of the file,
/// which strip changes.
#[derive(Debug, PartialEq, Eq)]
pub struct LinkedCode<'data>(Vec<(u64, &'data [u8])>);

impl<'data> LinkedCode<'data> {
    /// Reads the executable segments of a binary.
    pub fn read(elf: &Elf<'data>) -> Self {
        let [file, program] = HEADER_BYTES;
        let headers = file + program * elf.file.elf_program_headers().len();
        let segments = elf.file.segments();
        let code = segments.filter(|segment| is_code(segment.flags()));
        let code = code.filter_map(|segment| {
            let skipped = if segment.file_range().0 == 0 {
                headers
            } else {
                0
            };
            Some((segment.address(), segment.data().ok()?.get(skipped..)?))
        });
        Self(code.filter(|(_, bytes)| !bytes.is_empty()).collect())
    }

    /// Returns whether there is none, as in a debug file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
