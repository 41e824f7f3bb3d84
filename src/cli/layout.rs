// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options about the layout of nginx's structs.

use std::path::PathBuf;

use clap::Args;
use clap::ValueHint;

/// The options that name a source of the layout of nginx's structs.
#[derive(Args, Clone, Debug)]
pub struct LayoutArgs {
    /// Take the struct layout of nginx from FILE, as "ngx-bpf layout" prints it; it is checked against the
    /// code of nginx
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub layout: Option<PathBuf>,

    /// Use the FILE of --layout even where the code of nginx contradicts it; if FILE is wrong, so are the
    /// records
    #[arg(long, requires = "layout")]
    pub trust_layout: bool,

    /// Take the layout, and symbols that the binary lacks, from the debug information in FILE, which must
    /// belong to the same build; with --layout, take the symbols only
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub debug_info: Option<PathBuf>,
}
