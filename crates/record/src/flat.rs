// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a request from its keys. serde could do it by `flatten`, as it writes them; but then it keeps every key in
//! between, and a summary of a million requests takes twice as long.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Deserializer;

use crate::attempt::Attempt;
use crate::container::Container;
use crate::ending::Ending;
use crate::phases::Phases;
use crate::place::Config;
use crate::place::Place;
use crate::request::Request;
use crate::shares::Shares;
use crate::subrequest::Subrequest;
use crate::tcp::Tcp;
use crate::tls::Tls;
use crate::trace::Trace;
use crate::values;
use crate::waits::Waits;

/// A text of a record.
type Text<'a> = Option<Cow<'a, str>>;

/// Makes the struct of all keys, and the request of it. `own` are keys of `Request`; the others belong to a struct
/// whose keys are keys of the request. A key that is missing here is lost when a line is read, which a test notices.
macro_rules! keys {
    (
        own { $($(#[$own_attribute:meta])* $own:ident: $own_type:ty,)+ }
        $($member:ident: $struct:ident { $($(#[$attribute:meta])* $key:ident: $type:ty,)+ })+
    ) => {
        /// All keys of a request.
        #[derive(Deserialize)]
        struct Flat<'a> {
            $($(#[$own_attribute])* $own: $own_type,)+
            $($($(#[$attribute])* $key: $type,)+)+
        }

        impl<'a> From<Flat<'a>> for Request<'a> {
            #[expect(
                clippy::needless_update,
                reason = "one of the structs has a member that is no key"
            )]
            fn from(flat: Flat<'a>) -> Self {
                Self {
                    $($own: flat.$own,)+
                    $($member: $struct {
                        $($key: flat.$key,)+
                        ..Default::default()
                    },)+
                    is_body_unknown: false,
                }
            }
        }
    };
}

keys! {
    own {
        time: Option<String>,
        pid: u32,
        connection: Option<u64>,
        connection_requests: Option<u64>,
        remote_addr: Text<'a>,
        remote_port: Option<u16>,
        peer_addr: Text<'a>,
        peer_port: Option<u16>,
        server_addr: Text<'a>,
        server_port: Option<u16>,
        scheme: values::Scheme,
        server_protocol: Text<'a>,
        request_method: Text<'a>,
        request_uri: Text<'a>,
        uri: Text<'a>,
        http_host: Text<'a>,
        #[serde(default)]
        truncated: Vec<values::Cut>,
        status: Option<u32>,
        request_size: Option<i64>,
        response_size: Option<i64>,
        upstream_cache_status: Option<values::CacheStatus>,
        upstream_addr: Text<'a>,
        downstream_accept_time: Option<u64>,
        #[serde(default)]
        phases: Phases,
        phases_origin: Option<values::Origin>,
        duration_ns: Option<u64>,
        elapsed_ns: Option<u64>,
        #[serde(default)]
        tcp: Tcp,
        #[serde(default)]
        upstreams: Vec<Attempt<'a>>,
        #[serde(default)]
        subrequests: Vec<Subrequest<'a>>,
        layout: Option<values::LayoutSource>,
        #[serde(default)]
        partial: bool,
    }
    place: Place {
        location: Text<'a>,
        redirects: Option<u8>,
        server_name: Text<'a>,
        upstream_name: Text<'a>,
        #[serde(default)]
        config: Config<'a>,
        #[serde(default)]
        variables: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
        #[serde(default)]
        headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    }
    waits: Waits {
        time_ns: Option<Shares>,
        accept_queue_ns: Option<u64>,
        read_wait_ns: Option<u64>,
        upstream_read_wait_ns: Option<u64>,
        queue_ns: Option<u64>,
        body_read_ns: Option<u64>,
        limit_req_delay_ns: Option<u64>,
        auth_ns: Option<u64>,
        resolve_ns: Option<u64>,
        cache_lock_ns: Option<u64>,
        wait_ns: Option<u64>,
        client_stall_ns: Option<u64>,
        upstream_stall_ns: Option<u64>,
        request_temp_file_bytes: Option<u64>,
        response_temp_file_bytes: Option<u64>,
    }
    ending: Ending {
        end: Option<values::End>,
        timeout: Option<values::Timeout>,
        closed_by: Option<values::Side>,
        last_phase: Option<values::Part>,
        #[serde(default)]
        tunnel: bool,
        tunnel_ns: Option<u64>,
    }
    tls: Tls {
        tls_handshake_ns: Option<u64>,
        ssl_server_name: Text<'a>,
        ssl_protocol: Option<values::SslProtocol>,
        alpn: Option<values::Alpn>,
    }
    trace: Trace {
        trace_id: Text<'a>,
        parent_span_id: Text<'a>,
        trace_flags: Text<'a>,
    }
    container: Container {
        container_id: Text<'a>,
        pod_uid: Text<'a>,
        pod: Text<'a>,
        namespace: Text<'a>,
    }
}

impl<'de> Deserialize<'de> for Request<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Flat::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use crate::request::Request;
    use crate::schema;
    use crate::schema::longest;

    /// Check that every key of the schema is read, and written as it was.
    #[test]
    fn every_key() {
        let request: Request<'_> = longest();
        let written = serde_json::to_value(&request).unwrap();
        let read: Request<'_> = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        let keys = written.as_object().unwrap();
        let known = schema::record();
        let known = known["$defs"]["request"]["properties"].as_object().unwrap();
        for key in known.keys().filter(|key| *key != "type") {
            assert!(keys.contains_key(key), "{key} is not in the example");
        }
        assert!(keys.len() > 60, "{}", keys.len());
    }
}
