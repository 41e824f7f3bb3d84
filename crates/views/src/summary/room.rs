// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one screen has room for: of a long summary only the first answer is shown.

/// The lines of a screen.
const LINES: usize = 24;

/// The last line of a summary that does not show everything.
const REST: &str = "--all shows the rest\n";

/// How many rows each part of a summary has at most.
#[derive(Clone, Copy)]
pub struct Room {
    pub histogram: bool,
    pub stages: usize,
    pub groups: usize,
    pub slowest: usize,
    pub failed: usize,
}

impl Room {
    /// Returns a room without a histogram.
    const fn new(stages: usize, groups: usize, slowest: usize, failed: usize) -> Self {
        Self {
            histogram: false,
            stages,
            groups,
            slowest,
            failed,
        }
    }

    /// Adds a histogram.
    const fn with_histogram(self) -> Self {
        Self {
            histogram: true,
            ..self
        }
    }
}

/// Room for everything.
const WHOLE: Room = Room::new(usize::MAX, usize::MAX, usize::MAX, usize::MAX).with_histogram();

/// The rooms that are tried, one after another: the slowest requests are the first to give way, since the slowest of all
/// stands beside the percentiles.
const ROOMS: [Room; 13] = [
    Room::new(12, 10, 3, 4).with_histogram(),
    Room::new(12, 6, 3, 3).with_histogram(),
    Room::new(10, 4, 0, 2).with_histogram(),
    Room::new(8, 4, 0, 2).with_histogram(),
    Room::new(6, 3, 0, 2).with_histogram(),
    Room::new(5, 3, 0, 1).with_histogram(),
    Room::new(8, 4, 0, 2),
    Room::new(6, 4, 0, 2),
    Room::new(5, 3, 0, 2),
    Room::new(5, 3, 0, 1),
    Room::new(4, 2, 0, 1),
    Room::new(3, 2, 0, 1),
    Room::new(3, 2, 0, 0),
];

/// Returns the whole text that `build` makes or, unless everything is asked for, the longest one that one screen has room
/// for.
pub fn fitted(is_all: bool, build: impl Fn(Room) -> String) -> String {
    let whole = build(WHOLE);
    if is_all || whole.lines().count() <= LINES {
        return whole;
    }
    let mut shorter = ROOMS.into_iter().map(build);
    let fits = |text: &String| text.lines().count() < LINES;
    let found = shorter.by_ref().find(fits);
    /* Long lines of a narrow screen may leave too little room for the last one. */
    let found = found.unwrap_or_else(|| cut(&whole));
    found + REST
}

/// Returns the lines of the beginning that there is room for.
fn cut(text: &str) -> String {
    let lines = text.split_inclusive('\n').take(LINES - 1);
    lines.collect()
}
