// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a screen looks. Glyph and letter carry the meaning, and colour only repeats it.

use ngx_bpf_record::timeline::Class;

/// The classes, in the order in which bars and legends have them.
pub const CLASSES: [Class; 4] = [Class::Client, Class::Nginx, Class::Upstream, Class::Wait];

/// Ends what a colour has begun.
pub const RESET: &str = "\x1b[0m";

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether there are colours.
    pub colour: bool,
    /// Whether only ASCII can be shown.
    pub ascii: bool,
    /// The columns.
    pub width: usize,
}

impl Look {
    /// Returns the glyph of a class.
    pub fn glyph(self, class: Class) -> char {
        match (class, self.ascii) {
            (Class::Client, false) => '░',
            (Class::Nginx, false) => '▓',
            (Class::Upstream, false) => '█',
            (Class::Wait, false) => '▒',
            (Class::Client, true) => 'c',
            (Class::Nginx, true) => 'n',
            (Class::Upstream, true) => 'u',
            (Class::Wait, true) => 'w',
        }
    }

    /// Returns what stands for a part of a text that has no room.
    pub fn ellipsis(self) -> char {
        if self.ascii { '~' } else { '…' }
    }

    /// Returns a text in the colour of a class.
    pub fn of_class(self, class: Class, text: &str) -> String {
        self.in_colour(sgr(class), text)
    }

    /// Returns a text that is emphasized.
    pub fn strong(self, text: &str) -> String {
        self.in_colour("\x1b[1m", text)
    }

    /// Returns a text that reports a failure.
    pub fn failure(self, text: &str) -> String {
        self.in_colour("\x1b[31m", text)
    }

    /// Returns a text after this escape sequence, where there are colours.
    fn in_colour(self, begin: &str, text: &str) -> String {
        if self.colour {
            format!("{begin}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

/// Returns the name of a class, as a legend has it.
pub const fn name(class: Class) -> &'static str {
    match class {
        Class::Client => "client",
        Class::Nginx => "nginx",
        Class::Upstream => "upstream",
        Class::Wait => "wait",
    }
}

/// Returns the escape sequence that begins the colour of a class. These four differ for people who do not see red and
/// green alike.
const fn sgr(class: Class) -> &'static str {
    match class {
        Class::Client => "\x1b[36m",
        Class::Nginx => "\x1b[33m",
        Class::Upstream => "\x1b[34m",
        Class::Wait => "\x1b[35m",
    }
}
