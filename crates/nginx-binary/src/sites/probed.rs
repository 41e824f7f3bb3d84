// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of nginx that are probed.

/// A function that is probed.
pub struct ProbedFunction {
    pub function: &'static str,
    /// The number of its arguments that are read, 1 or 2.
    pub arguments: usize,
    /// The BPF program that is attached to it (bpf/ngx.bpf.c).
    pub program: &'static str,
    /// Another function, of which the program needs the address.
    pub landmark: Option<&'static str>,
    pub purpose: Purpose,
}

/// The requests that a probe is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Every request.
    Always,
    /// Requests of a module. Builds without the module have no such function.
    Module,
    /// None: it shows turns of the event loop.
    Turn,
    /// Responses over HTTP/3. Unless all of these probes can be placed, the responses have no times.
    Quic,
}

/// Feature test for `Purpose::Quic`: this symbol appeared in 1.25.4 together with the frame layout in
/// nginx_headers/nginx.h.
pub const QUIC_FRAMES: &str = "ngx_quic_path_limit";

/// The BPF program that runs once a request, at its end.
pub const END_PROGRAM: &str = "free_request";

pub const PROBED: [ProbedFunction; 6] = [
    ProbedFunction {
        function: "ngx_http_init_connection",
        arguments: 1,
        program: "init_connection",
        landmark: None,
        purpose: Purpose::Always,
    },
    ProbedFunction {
        function: "ngx_http_free_request",
        arguments: 2,
        program: END_PROGRAM,
        landmark: Some("ngx_http_request_empty_handler"),
        purpose: Purpose::Always,
    },
    ProbedFunction {
        function: "ngx_http_v2_send_output_queue",
        arguments: 1,
        program: "send_output_queue",
        landmark: None,
        purpose: Purpose::Module,
    },
    ProbedFunction {
        function: "ngx_quic_output",
        arguments: 1,
        program: "quic_output",
        landmark: None,
        purpose: Purpose::Quic,
    },
    ProbedFunction {
        function: "ngx_quic_close_connection",
        arguments: 1,
        program: "quic_close",
        landmark: None,
        purpose: Purpose::Quic,
    },
    ProbedFunction {
        function: "ngx_process_events_and_timers",
        arguments: 1,
        program: "turn",
        landmark: None,
        purpose: Purpose::Turn,
    },
];
