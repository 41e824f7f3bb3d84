// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compiles `bpf/ngx.bpf.c` and writes its Rust skeleton to `OUT_DIR`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

/// The only translation unit of the BPF side.
const SOURCE: &str = "bpf/ngx.bpf.c";

/// A change in one of these folders makes cargo build the skeleton again.
const INPUTS: [&str; 3] = ["bpf", "vmlinux", "nginx_headers"];

/// Compiler arguments in addition to those of libbpf-cargo. `-mcpu=v3` has atomics that return a value
/// (Linux 5.12); `-isystem` limits `-Wpadded` to the structs of `bpf/`.
const CLANG_ARGS: [&str; 10] = [
    "-mcpu=v3",
    "-isystem",
    "vmlinux",
    "-isystem",
    "nginx_headers",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wpadded",
    "-Werror",
];

fn main() -> Result<(), Box<dyn Error>> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    if !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err(format!("{arch} is not supported, only x86_64 and aarch64 are").into());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    /* The object contains the paths of its sources; they must not depend on where it is built. */
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let prefix_map = format!("-ffile-prefix-map={here}=.");
    SkeletonBuilder::new()
        .source(SOURCE)
        .clang_args(CLANG_ARGS.into_iter().chain([prefix_map.as_str()]))
        .build_and_generate(out.join("ngx.skel.rs"))?;
    for input in INPUTS {
        println!("cargo:rerun-if-changed={input}");
    }
    Ok(())
}
