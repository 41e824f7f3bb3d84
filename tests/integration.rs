// SPDX-License-Identifier: MIT OR Apache-2.0
//! One binary, so that it links once. What is below `root` needs root and a kernel with BTF, and
//! traces real nginx; `cargo test -- --skip root::` runs the rest.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod suite;
