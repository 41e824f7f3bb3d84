// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a request that say where in nginx's configuration it was handled.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

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
    /// The number of internal redirects: how often nginx was made to choose another location (below). It has refused
    /// the last one of 11.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::REDIRECTS_MAX), extend(
        "x-source" = "`r->uri_changes`",
        "x-absent" = "there was none; the release was not examined \
                      (docs/compatibility.md), or the code of the build does not show the place"
    ))]
    pub redirects: Option<u8>,
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
        "x-absent" = "the request had no upstream, or the cache answered without one; nginx is older than 1.11.5, unless a \
                      variable gave the host; Tengine"
    ))]
    pub upstream_name: Option<Cow<'a, str>>,
    /// Whether a variable gave the host, which clients may choose. This is not a key: it is false of a record
    /// that was read.
    #[serde(skip)]
    pub is_upstream_of_variable: bool,
    /// Where the server, and the group of the last upstream, stand in the configuration (below).
    #[serde(default, skip_serializing_if = "Config::is_empty")]
    #[schemars(extend(
        "x-source" = "`cscf->file_name`, `uscf->file_name`",
        "x-absent" = "`--config-lines` was not given; neither is known"
    ))]
    pub config: Config<'a>,
    /// Variables that `--variable` names, by their names without `$`, with the value that nginx has last
    /// evaluated in this request. ngx-bpf evaluates nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "additionalProperties" = asked(),
        "maxProperties" = limits::ASKED_MAX,
        "x-source" = "`r->variables`, `cmcf->variables`",
        "x-absent" = "`--variable` was not given. One of them is absent when it is empty, when nginx has \
                      not evaluated it by the end of the request (what only a `log_format` uses is \
                      evaluated after that), and when nothing in the configuration uses it"
    ))]
    pub variables: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Headers of the request that `--header` names, by their names in lower case. Of several with one name
    /// it is the first: if that is empty, there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "additionalProperties" = asked(),
        "maxProperties" = limits::ASKED_MAX,
        "x-source" = "`r->headers_in.headers`",
        "x-absent" = "`--header` was not given. One of them is absent when the request does not have it, or \
                      its value is empty, when nginx has ignored it (as long as `ignore_invalid_headers` is on, \
                      every name with other characters than letters, digits and `-`; with \
                      `underscores_in_headers on` a `_` is valid, too), when 180 or more headers precede \
                      it, and over HTTP/1 when its name has neither a letter, a digit nor `-`"
    ))]
    pub headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// Returns the schema of a value that an option asks for.
fn asked() -> serde_json::Value {
    json!({ "type": "string", "maxLength": limits::ASKED_VALUE_MAX })
}

/// Where blocks stand in the configuration, each as the file, a colon and the line.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Config<'a> {
    /// The `server` block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::CONFIG_MAX), extend(
        "x-source" = "`cscf->file_name`, `cscf->line`",
        "x-absent" = "nginx is older than 1.15.0; the path of the file has more than 510 bytes"
    ))]
    pub server: Option<Cow<'a, str>>,
    /// The `upstream` block, or without one the `proxy_pass` (or `fastcgi_pass` and so on) that first names
    /// the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::CONFIG_MAX), extend(
        "x-source" = "`uscf->file_name`, `uscf->line`",
        "x-absent" = "there is no `upstream_name`; a variable gave the host; the path of the file has more \
                      than 510 bytes"
    ))]
    pub upstream: Option<Cow<'a, str>>,
}

impl Config<'_> {
    /// Returns whether neither is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Place<'_> {
    /// Leaves out one key, for a line that would be too long. Returns the key; `None` when there is none.
    pub(crate) fn leave_out(&mut self) -> Option<Cut> {
        for (values, cut) in [
            (&mut self.headers, Cut::Headers),
            (&mut self.variables, Cut::Variables),
        ] {
            if !values.is_empty() {
                values.clear();
                return Some(cut);
            }
        }
        if !self.config.is_empty() {
            self.config = Config::default();
            return Some(Cut::Config);
        }
        let names = [
            (&mut self.upstream_name, Cut::UpstreamName),
            (&mut self.server_name, Cut::ServerName),
            (&mut self.location, Cut::Location),
        ];
        let mut names = names.into_iter();
        names.find_map(|(name, cut)| name.take().map(|_| cut))
    }
}
