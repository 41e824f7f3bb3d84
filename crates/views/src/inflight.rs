// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf inflight` on a terminal: what hangs right now, the oldest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ngx_bpf_record::Inflight;
use ngx_bpf_record::values::State;

use crate::cell;
use crate::look::Look;
use crate::units;

/// The lines of the screen, at most.
pub const LINES: usize = 24;

/// The requests that are shown: with the other lines they fill a screen.
const ROWS: usize = 16;

/// The columns of the age, of the worker and of the state, each with the space before it.
const AGE: usize = 9;
const WORKER: usize = 9;
const STATE: usize = 28;

/// From which width on there is a column of workers.
const WIDE: usize = 60;

/// Returns the screen. The oldest requests come first.
pub fn terminal(requests: &[Inflight<'_>], look: Look) -> String {
    let is_tunnel = |request: &&Inflight<'_>| request.state == Some(State::Tunnel);
    let (tunnels, requests): (Vec<_>, Vec<_>) = requests.iter().partition(is_tunnel);
    let mut text = look.strong(&cell::at_most(
        &title(&requests, &tunnels),
        look.width,
        look,
    ));
    text += "\n";
    if requests.is_empty() {
        return text;
    }
    text += "\n";
    text += &line(["AGE", "WORKER", "STATE"], "REQUEST", look);
    for request in requests.iter().take(ROWS) {
        text += &row(request, look);
    }
    let rest = requests.get(ROWS..).unwrap_or_default();
    if !rest.is_empty() {
        let rest = format!(
            "... {} more: {}",
            units::count(rest.len() as u64),
            states(rest)
        );
        text += &(cell::at_most(&rest, look.width, look) + "\n");
    }
    text += "\n";
    let mut workers: BTreeMap<String, u64> = BTreeMap::new();
    for request in &requests {
        *workers.entry(request.pid.to_string()).or_default() += 1;
    }
    for (name, counts) in [
        ("by state ", states(&requests)),
        ("by worker", counts(workers)),
    ] {
        text += &(cell::at_most(&format!("{name}  {counts}"), look.width, look) + "\n");
    }
    text
}

/// Returns the first line: how many there are, and when.
fn title(requests: &[&Inflight<'_>], tunnels: &[&Inflight<'_>]) -> String {
    let count = units::counted(requests.len() as u64, "request");
    let tunnels_are = match tunnels.len() {
        0 => String::new(),
        tunnels => format!(", {}", units::counted(tunnels as u64, "tunnel")),
    };
    let time = requests.iter().chain(tunnels).map(|request| &request.time);
    let time = time.max().and_then(|time| time.get(11..23));
    let time = time.map(|time| format!("  {time}Z")).unwrap_or_default();
    format!("{count} in flight{tunnels_are}{time}")
}

/// Returns the line of a request.
fn row(request: &Inflight<'_>, look: Look) -> String {
    let age = request
        .age_ms
        .map(|ms| units::time(ms.saturating_mul(1_000_000)));
    let known =
        |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let what = match request.request_method {
        Some(_) => format!(
            "{} {}",
            known(&request.request_method),
            known(&request.request_uri)
        ),
        None => format!("- (client {})", known(&request.remote_addr)),
    };
    let worker = request.pid.to_string();
    let state = doing(request);
    line(
        [age.as_deref().unwrap_or("-"), &worker, &state],
        &what,
        look,
    )
}

/// Returns a line of the table.
fn line([age, worker, state]: [&str; 3], what: &str, look: Look) -> String {
    let worker = match look.width < WIDE {
        true => String::new(),
        false => cell::right(worker, WORKER, look),
    };
    let (age, state) = (
        cell::right(age, AGE, look),
        cell::left(state, STATE - 1, look),
    );
    let text = format!("{age}{worker} {state} {what}");
    cell::at_most(text.trim_end(), look.width, look) + "\n"
}

/// Returns what nginx does with a request: with which upstream, and how far it is.
fn doing(request: &Inflight<'_>) -> String {
    let size = |bytes: Option<i64>, how: &str| {
        let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes > 0);
        bytes
            .map(|bytes| format!(", {} {how}", units::size(bytes)))
            .unwrap_or_default()
    };
    let Some(state) = request.state else {
        return "-".to_owned();
    };
    let name = name(state);
    match (&request.upstream_addr, state) {
        (Some(addr), _) => format!("{name} {addr}"),
        (None, State::ReadingBody) => format!("{name}{}", size(request.request_size, "read")),
        (None, State::Sending) => format!("{name}{}", size(Some(request.response_size), "sent")),
        _ => name,
    }
}

/// Returns the name of a state for people.
fn name(state: State) -> String {
    match state {
        /* As nginx's own messages and documentation name the directive. */
        State::LimitReqDelay => "limit_req delay".to_owned(),
        state => state.name().replace('_', " "),
    }
}

/// Returns how many requests are in each state, the most frequent first.
fn states(requests: &[&Inflight<'_>]) -> String {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for request in requests {
        let name = request.state.map_or("not known".to_owned(), name);
        *states.entry(name).or_default() += 1;
    }
    counts(states)
}

/// Returns numbers with their names, the largest first.
fn counts(all: BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, count)| Reverse(*count));
    let all = all
        .iter()
        .map(|(name, number)| format!("{name} {}", units::count(*number)));
    all.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Inflight;
    use ngx_bpf_record::values::State;

    use super::LINES;
    use super::terminal;
    use crate::cell;
    use crate::look::Look;

    /// Returns requests of all kinds, and 17 tunnels.
    fn requests() -> Vec<Inflight<'static>> {
        let states = [
            (State::ReadingBody, None),
            (State::Connecting, Some("10.0.1.4:8080")),
            (State::Waiting, Some("10.0.1.5:8080")),
            (State::Sending, None),
            (State::LimitReqDelay, None),
            (State::Auth, Some("10.0.1.6:8080")),
        ];
        let mut requests: Vec<_> = (0..38)
            .map(|n: u32| {
                let (state, addr) = states[n as usize % 6];
                Inflight {
                    time: "2026-11-26T21:04:17.120000000Z".to_owned(),
                    pid: 5_875 + n % 4,
                    age_ms: Some(u64::from(n) * 331),
                    state: Some(state),
                    upstream_addr: addr.map(Into::into),
                    request_method: Some("GET".into()),
                    request_uri: Some(format!("/api/orders/{n}\u{1b}[31m").into()),
                    request_size: Some(3_100_000),
                    response_size: 64_000,
                    ..Default::default()
                }
            })
            .collect();
        requests[7] = Inflight {
            pid: 5_876,
            state: Some(State::ReadingHeader),
            remote_addr: Some("192.0.2.7".into()),
            age_ms: Some(60_001),
            ..Default::default()
        };
        requests[8].state = None;
        requests[9].age_ms = None;
        requests.sort_by_key(|request| std::cmp::Reverse(request.age_ms));
        requests.extend(vec![
            Inflight {
                state: Some(State::Tunnel),
                ..Default::default()
            };
            17
        ]);
        requests
    }

    /// Check the screen in several sizes, and one without requests.
    #[test]
    fn screens() {
        for (width, ascii) in [(80, false), (120, false), (40, true)] {
            let look = Look {
                colour: false,
                ascii,
                width,
            };
            let text = terminal(&requests(), look);
            assert!(text.lines().all(|line| cell::width(line, look) <= width));
            assert!(text.lines().count() <= LINES, "{text}");
            insta::assert_snapshot!(format!("inflight_{width}"), text);
            assert_eq!(terminal(&[], look), "0 requests in flight\n");
        }
    }
}
