// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tool's own memory: what it needs to start, and what it keeps.

use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Tool;

/// The memory of its own that the tool may have while it traces. A release build has 2.8 MiB, of which 1.1 is
/// what libbpf keeps of the shared object; a debug build has 4.0.
const OWN_MAX: u64 = if cfg!(debug_assertions) { 5 } else { 4 } << 20;

/// The memory that it may have had beyond the files that it has mapped now, the ring buffer among them.
const START_MAX: u64 = 12 << 20;

/// Check that what the set-up needed is freed when tracing has started, and that it was not much.
#[test]
fn start() {
    let nginx = Nginx::simple();
    let tool = Tool::trace(nginx.pid());
    let own = tool.memory("RssAnon");
    let beyond_files = tool.memory("VmHWM") - tool.memory("RssFile");
    println!("{own} bytes of its own, at most {beyond_files} beyond mapped files");
    assert!(own <= OWN_MAX, "{own}");
    assert!(beyond_files <= START_MAX, "{beyond_files}");
    tool.stop().assert_clean();
}
