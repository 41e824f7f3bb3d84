// SPDX-License-Identifier: MIT OR Apache-2.0
//! The skeleton that build.rs makes of bpf/: generated code, so our lints end here.

#![allow(unused, clippy::all, clippy::restriction, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/ngx.skel.rs"));
