// SPDX-License-Identifier: MIT OR Apache-2.0
//! All integration tests are one binary, so that it links once. Tests below `root` need root and a
//! kernel with BTF, and trace a real nginx; `cargo test -- --skip root::` runs the rest.

/* In a test a panic is the message. docs/fields.md documents the names in records. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used
)]

mod suite;
