// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the names in records mean, in words.

use ngx_bpf_record::timeline::Stage;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

/// Returns the name of a stage, for a row below its attempt.
pub const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Queue => "request before it",
        Stage::ClientRequest => "request header",
        Stage::LimitReqDelay => "limit_req delay",
        Stage::Auth => "auth",
        Stage::ClientBody => "request body",
        Stage::CacheLock => "cache lock",
        Stage::Resolve => "name server",
        Stage::Wait => "several waits",
        Stage::Nginx => "nginx",
        Stage::Subrequest => "subrequests",
        Stage::UpstreamConnect => "connect",
        Stage::UpstreamRequest => "send request",
        Stage::UpstreamWait => "wait for header",
        Stage::UpstreamResponse => "read response",
        Stage::ClientResponse => "send to client",
    }
}

/// Returns the name of a stage, for a row of many requests.
pub const fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Queue => "queue (pipelined)",
        Stage::ClientRequest => "request header",
        Stage::LimitReqDelay => "limit_req delay",
        Stage::Auth => "auth_request",
        Stage::ClientBody => "request body",
        Stage::CacheLock => "cache lock",
        Stage::Resolve => "name server",
        Stage::Wait => "waits in modules",
        Stage::Nginx => "nginx itself",
        Stage::Subrequest => "subrequest's upstream",
        Stage::UpstreamConnect => "upstream connect",
        Stage::UpstreamRequest => "upstream request",
        Stage::UpstreamWait => "upstream wait",
        Stage::UpstreamResponse => "upstream response",
        Stage::ClientResponse => "response to client",
    }
}

/// Returns what happened in a stage, as the end of a sentence. The stages of an attempt name its server.
pub fn happened(stage: Stage, server: &str) -> String {
    let text = match stage {
        Stage::Queue => "it waited for the request before it on its connection",
        Stage::ClientRequest => "nginx waited for the rest of the header from the client",
        Stage::LimitReqDelay => "limit_req delayed it",
        Stage::Auth => "it waited for the subrequest of auth_request",
        Stage::ClientBody => "nginx waited for the rest of the body from the client",
        Stage::CacheLock => {
            "another request filled the entry of the cache (proxy_cache_lock: nginx looks every 500 ms)"
        }
        Stage::Resolve => "a name server resolved the name of the upstream",
        Stage::Wait => {
            "it waited for limit_req, auth_request, a name server or a cache lock, or for a module that is not nginx's own"
        }
        Stage::Nginx => {
            "nginx had it and is not known to have waited: it computes, reads a disk, obeys limit_rate, or a module waits"
        }
        Stage::Subrequest => "a subrequest waited for its upstream",
        Stage::ClientResponse => "nginx sent the response to the client",
        Stage::UpstreamConnect => return format!("nginx connected to {server}"),
        Stage::UpstreamRequest => return format!("nginx sent the request to {server}"),
        Stage::UpstreamWait => {
            return format!("{server} had the request, and nothing of its response had come");
        }
        Stage::UpstreamResponse => return format!("nginx read the response of {server}"),
    };
    text.to_owned()
}

/// Returns why an attempt failed, as a sentence whose subject is the server. `is_reused` says that the connection was
/// kept, `has_header` that the header of the response was whole.
pub const fn failed(failure: Failure, is_reused: bool, has_header: bool) -> &'static str {
    match failure {
        Failure::ConnectError => "refused the connection, or can't be reached",
        Failure::ConnectTimeout => "did not accept the connection within proxy_connect_timeout",
        Failure::TlsError => {
            "and nginx did not agree on TLS: the handshake failed, or nginx refused the certificate"
        }
        Failure::TlsTimeout => "did not end the TLS handshake in the time that nginx waits",
        Failure::NoLiveUpstreams => "has no live server: each is down, or marked as failed",
        Failure::SendTimeout => "did not take the whole request within proxy_send_timeout",
        Failure::Timeout if has_header => "sent no more of its response for proxy_read_timeout",
        Failure::Timeout => "sent no response within proxy_read_timeout",
        Failure::Closed if has_header => "closed the connection before its response was complete",
        Failure::Closed if is_reused => {
            "closed the kept connection and sent no whole header of a response"
        }
        Failure::Closed => "closed the connection and sent no whole header of a response",
        Failure::Reset if has_header => "reset the connection before its response was complete",
        Failure::Reset => "reset the connection and sent no whole header of a response",
        Failure::InvalidHeader => "sent what is not the header of a response",
        Failure::InvalidBody => "sent a body that could not be read",
        Failure::Error => "failed; why is not certain",
        Failure::ClientClosed => "had not answered when the client left",
        Failure::Http403 => "answered with 403, and nginx tried the next server",
        Failure::Http404 => "answered with 404, and nginx tried the next server",
        Failure::Http429 => "answered with 429, and nginx tried the next server",
        Failure::Http500 => "answered with 500, and nginx tried the next server",
        Failure::Http502 => "answered with 502, and nginx tried the next server",
        Failure::Http503 => "answered with 503, and nginx tried the next server",
        Failure::Http504 => "answered with 504, and nginx tried the next server",
    }
}

/// Returns which time limit expired, as a sentence.
pub const fn expired(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Header => "The header did not come within client_header_timeout",
        Timeout::Body => "No more of the body came for client_body_timeout",
        Timeout::Send => "The client took nothing of the response for send_timeout",
        Timeout::Connect => "The upstream accepted no connection within proxy_connect_timeout",
        Timeout::UpstreamSend => "The upstream took no more of the request for proxy_send_timeout",
        Timeout::UpstreamRead => "The upstream sent nothing for proxy_read_timeout",
        Timeout::Resolve => "No name server resolved the upstream within resolver_timeout",
    }
}

/// Returns what nginx did in the part in which a request was cut short.
pub fn doing(part: Part, server: &str) -> String {
    let text = match part {
        Part::ClientRequest => "nginx was reading the header",
        Part::ClientBody => "nginx was reading the body",
        Part::BeforeUpstream => "nginx had not begun to connect to an upstream",
        Part::BeforeResponse => "nginx had the request and had sent nothing",
        Part::ClientResponse => "the client had a part of the response",
        Part::UpstreamConnect => return format!("nginx was connecting to {server}"),
        Part::UpstreamRequest => return format!("nginx was sending the request to {server}"),
        Part::UpstreamWait => {
            return format!("{server} had the request, and nothing of its response had come");
        }
        Part::UpstreamResponse => return format!("nginx was reading the response of {server}"),
    };
    text.to_owned()
}
