// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminal that stdout may be: what it can show, and how wide it is.

use std::env;
use std::io;
use std::io::IsTerminal as _;

use ngx_bpf_views::look::Look;

/// The columns where there is no terminal, or it does not say how many it has.
const COLUMNS: usize = 80;

/// Returns whether stdout is a terminal.
pub fn is_stdout() -> bool {
    io::stdout().is_terminal()
}

/// Returns how a text on stdout looks. `--ascii` asks for ASCII whatever the locale is.
pub fn look(ascii: bool) -> Look {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    Look {
        colour: is_stdout() && !is_dumb && !is_set("NO_COLOR"),
        ascii: ascii || !is_utf8(),
        width: columns(),
    }
}

/// Gives the terminal back as it was, if a screen has it.
pub fn restore() {
    ngx_bpf_views::top::restore();
}

/// Returns the columns of the terminal: 80 where stdout is not a terminal.
pub fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = size.filter(|size| size.ws_col > 0);
    known.map_or(COLUMNS, |size| usize::from(size.ws_col))
}

/// Returns whether the locale has UTF-8: the first of these variables that is set decides.
fn is_utf8() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let mut values = names.into_iter().filter_map(env::var_os);
    let locale = values.find(|value| !value.is_empty());
    let locale = locale.map(|locale| locale.to_string_lossy().to_ascii_lowercase());
    locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}
