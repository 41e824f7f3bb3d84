// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the ELF reader on broken and foreign files.

use std::fs::File;

use super::Budget;
use super::Elf;
use super::Image;
use crate::build::Build;

fn image(bytes: &[u8]) -> Image {
    Image::read_up_to(bytes.len() as u64, bytes).unwrap()
}

/// Returns the image of this test program itself.
fn own() -> Image {
    Image::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap()
}

/// Check that bytes that are not an ELF file are an error.
#[test]
fn not_elf() {
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
        assert!(Elf::parse(&image(bytes)).is_err());
    }
}

/// Check that sections share one budget, and that none is read beyond it.
#[test]
fn budget() {
    let image = own();
    let elf = Elf::parse(&image).unwrap();
    let text = elf.section(".text", &mut Budget::default());
    let size = text.unwrap().unwrap().len() as u64;
    assert!(elf.section(".text", &mut Budget(size - 1)).is_err());
    let mut budget = Budget(size + 1);
    assert!(elf.section(".text", &mut budget).is_ok());
    assert!(elf.section(".text", &mut budget).is_err());
}

/// Check that an ELF file that is not nginx is refused, and that cutting it anywhere does not panic.
#[test]
fn not_nginx() {
    let whole = own();
    let elf = Elf::parse(&whole).unwrap();
    assert!(Build::identify(&elf).is_err());
    assert!(elf.function("ngx_http_free_request").is_err());
    for size in (0..whole.bytes().len()).step_by(whole.bytes().len() / 64) {
        let cut = image(&whole.bytes()[..size]);
        if let Ok(elf) = Elf::parse(&cut) {
            assert!(Build::identify(&elf).is_err());
            let _ = elf.build_id();
        }
    }
}
