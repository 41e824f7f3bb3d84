// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the rows of the screen are.

use ngx_bpf_record::statistics::GroupKey;

/// What the rows of the screen are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Requests by a key: its place in [`keys`].
    Group(usize),
    /// Upstreams, and their servers.
    Upstreams,
    /// Workers.
    Workers,
}

/// The views of each screen, with the key that shows it and its name.
const VIEWS: [(char, &str, View); 8] = [
    ('l', "location", View::Group(0)),
    ('u', "upstream", View::Upstreams),
    ('t', "status", View::Group(1)),
    ('w', "worker", View::Workers),
    ('h', "host", View::Group(2)),
    ('c', "client", View::Group(3)),
    ('n', "container", View::Group(4)),
    ('d', "pod", View::Group(5)),
];

/// The key of the view that the caller asks for, if it is none of the others.
const ASKED: char = 'g';

/// Returns the keys by which requests are grouped: those of every screen, and the one that the caller asks for if it is
/// another one.
pub fn keys(asked: Option<&GroupKey>) -> Vec<GroupKey> {
    let mut keys = vec![
        GroupKey::Location,
        GroupKey::Status,
        GroupKey::Host,
        GroupKey::Client,
        GroupKey::Container,
        GroupKey::Pod,
    ];
    if let Some(asked) = asked.filter(|asked| of(asked).is_none() && !keys.contains(asked)) {
        keys.push(asked.clone());
    }
    keys
}

/// Returns the view of a key that has columns of its own. `None` of other keys.
fn of(key: &GroupKey) -> Option<View> {
    match key {
        GroupKey::Upstream | GroupKey::Peer => Some(View::Upstreams),
        GroupKey::Worker => Some(View::Workers),
        _ => None,
    }
}

/// Returns the view that shows a key of [`keys`].
pub fn first(asked: Option<&GroupKey>, keys: &[GroupKey]) -> View {
    let view = asked.and_then(|asked| {
        let place = keys.iter().position(|key| key == asked);
        of(asked).or(place.map(View::Group))
    });
    view.unwrap_or(View::Group(0))
}

/// Returns the views of a screen, with the key that shows each, and its name.
pub fn all(keys: &[GroupKey]) -> Vec<(char, String, View)> {
    let fixed = VIEWS.map(|(key, name, view)| (key, name.to_owned(), view));
    let asked = keys
        .get(6)
        .map(|key| (ASKED, key.to_string(), View::Group(6)));
    fixed.into_iter().chain(asked).collect()
}
