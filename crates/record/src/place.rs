// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that say where in nginx's configuration it was handled.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::limits;
use crate::values::Cut;

/// The places in the configuration that a request belongs to, as far as they have a name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Place<'a> {
    /// The name of the location that answered, after internal redirects: the prefix or the pattern as
    /// it is configured, without `=`, `~` or `^~` before it; a named location with its `@`. An `if`
    /// block and `limit_except` have the name of their location.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PLACE_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->loc_conf` of the core module: `clcf->name`",
        "x-absent" = "no location was chosen: the server answered (`return`), or nginx refused the \
                      request before that (400, 408, 414, 431, 494)",
        "x-otel" = "http.route"
    ))]
    pub location: Option<Cow<'a, str>>,
    /// `$server_name`: the first name of the server that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PLACE_MAX), extend(
        "x-cut" = true,
        "x-source" = "`r->srv_conf` of the core module: `cscf->server_name`",
        "x-absent" = "the server has no name, or an empty one"
    ))]
    pub server_name: Option<Cow<'a, str>>,
    /// The name of the group (`upstream {}`) that the last upstream belongs to. Without a group it is the host
    /// in `proxy_pass` (or `fastcgi_pass` and so on), without its port, also where a variable gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PLACE_MAX), extend(
        "x-cut" = true,
        "x-source" = "`u->upstream->host`, else `u->resolved->host`",
        "x-absent" = "the request had no upstream, or its cache answered; nginx is older than 1.11.5, unless a \
                      variable gave the host; Tengine"
    ))]
    pub upstream_name: Option<Cow<'a, str>>,
}

impl Place<'_> {
    /// Leaves out one key, for a line that would be too long. Returns the key; `None` when there is none.
    pub(crate) fn leave_out(&mut self) -> Option<Cut> {
        let names = [
            (&mut self.upstream_name, Cut::UpstreamName),
            (&mut self.server_name, Cut::ServerName),
            (&mut self.location, Cut::Location),
        ];
        let mut names = names.into_iter();
        names.find_map(|(name, cut)| name.take().map(|_| cut))
    }
}
