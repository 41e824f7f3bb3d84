// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that nginx itself makes wait: `limit_req` and `auth_request`.

use nginx_binary::pauses::PausePlaces;

use super::reader::REQUEST;
use super::reader::StructReader;

/// `r->phase_handler` is this many bytes after `r->main`, and `phase_engine.handlers` is at this place of
/// `ngx_http_core_main_conf_t`, in all releases: as in nginx_headers/nginx.h.
const PHASE_HANDLER: u64 = 40;
const HANDLERS: u64 = 40;

/// The size of `ngx_http_phase_handler_t`, and the place of `handler` in it (src/http/ngx_http_core_module.h).
const HANDLER_BYTES: u64 = 24;
const HANDLER: u64 = 8;

/// The most handlers of phases that are expected. nginx's own modules have fewer than 40.
const HANDLERS_MAX: u64 = 64;

/// Why nginx makes a request wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// `limit_req` delays it.
    LimitReq,
    /// It waits for the subrequest of `auth_request`.
    Auth,
}

/// Returns why nginx makes the main request `r` wait, which has this `write_event_handler`. `None` when it does not, or
/// when that is not certain.
///
/// `ngx_http_limit_req_delay()` puts another handler in its own place when the delay is over. The handler of
/// auth_request in the access phase is the one that handles the request when the worker is in its event loop only
/// while the subrequest is in flight: otherwise it passes the request on, or ends it, which sets another
/// `write_event_handler`.
pub fn pause(
    reader: StructReader<'_>,
    places: &PausePlaces,
    r: u64,
    handler: u64,
) -> Option<Pause> {
    if places.limit_req_delay == Some(handler) {
        return Some(Pause::LimitReq);
    }
    if places.run_phases != Some(handler) {
        return None;
    }
    let in_phase = phase_handler(reader, r);
    (in_phase.is_some() && in_phase == places.auth_request).then_some(Pause::Auth)
}

/// Returns the function that handles the phase of a request.
fn phase_handler(reader: StructReader<'_>, r: u64) -> Option<u64> {
    let index = reader.place(r, (REQUEST, "main"))?;
    let index = reader.memory.word(index.checked_add(PHASE_HANDLER)?)?;
    let index = Some(index).filter(|index| *index < HANDLERS_MAX)?;
    /* ngx_http_core_module is the first of all modules for http: the first of r->main_conf is its. */
    let main_conf = reader.pointer(r, (REQUEST, "main_conf"))?;
    let core = reader.memory.word(main_conf)?;
    let handlers = reader.memory.word(core.checked_add(HANDLERS)?)?;
    let handler = handlers.checked_add(index * HANDLER_BYTES + HANDLER)?;
    reader.memory.word(handler)
}
