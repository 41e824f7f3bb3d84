// SPDX-License-Identifier: MIT OR Apache-2.0
//! One binary, so that it links once. What is below `root` needs root and a kernel with BTF, and
//! traces real nginx; `cargo test -- --skip root::` runs the rest.

/* In a test a panic is the message; the names of records are documented in docs/fields.md. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used
)]

mod suite;
