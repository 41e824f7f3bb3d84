// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every screen at each size, with glyphs and with letters, with colours and without.

use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::LOOK;
use super::drawn;
use super::full;
use super::press;
use crate::look::Look;
use crate::waterfall;

/// The screens, and the keys that lead to them.
const SCREENS: [(&str, &str); 12] = [
    ("location", "l"),
    ("upstream", "u"),
    ("status", "t"),
    ("worker", "w"),
    ("host", "h"),
    ("client", "c"),
    ("container", "n"),
    ("pod", "d"),
    ("requests", "/ reports Enter Enter"),
    ("waterfall", "/ reports Enter Enter Down Enter"),
    ("json", "/ reports Enter Enter Down Enter Enter"),
    ("help", "?"),
];

/// The columns and the rows.
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

/// Returns the screen that these keys lead to.
fn screen(keys: &str, look: Look, (width, height): (u16, u16)) -> TestBackend {
    let mut top = full(look);
    top.settings.waterfall = waterfall::terminal;
    press(&mut top, keys);
    drawn(&top, width, height)
}

/// Check each screen. Colours only repeat what is there without them, and a screen of ASCII has nothing else.
#[test]
fn all() {
    for (name, keys) in SCREENS {
        for size in SIZES {
            let [glyphs, ascii] = [false, true].map(|ascii| {
                let [plain, coloured] = [false, true].map(|colour| {
                    let look = Look {
                        colour,
                        ascii,
                        ..LOOK
                    };
                    screen(keys, look, size)
                });
                let cells = plain.buffer().content().iter();
                let mut cells = cells.zip(coloured.buffer().content());
                assert!(cells.all(|(plain, coloured)| {
                    let has_none = plain.fg == Color::Reset && plain.bg == Color::Reset;
                    has_none && plain.symbol() == coloured.symbol()
                }));
                plain.to_string()
            });
            assert!(ascii.is_ascii(), "{ascii}");
            let (width, height) = size;
            insta::assert_snapshot!(format!("{name}_{width}x{height}"), glyphs);
            insta::assert_snapshot!(format!("{name}_{width}x{height}_ascii"), ascii);
        }
    }
}
