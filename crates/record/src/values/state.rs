// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states of a request that has not ended.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

names! {
    /// What nginx does with a request that has not ended.
    pub enum State {
        /// nginx has not read the whole header.
        ReadingHeader = "reading_header",
        /// nginx has not read the whole body.
        ReadingBody = "reading_body",
        /// `limit_req` delays the request.
        LimitReqDelay = "limit_req_delay",
        /// nginx waits for the subrequest of `auth_request`.
        Auth = "auth",
        /// nginx is connecting to an upstream, or is in the TLS handshake with it.
        Connecting = "connecting",
        /// nginx has sent a part of the request to the upstream.
        SendingRequest = "sending_request",
        /// The upstream has the request, and nginx has no header of a response.
        Waiting = "waiting",
        /// nginx has the header of the upstream's response, and reads more.
        Receiving = "receiving",
        /// The client does not take what nginx has to send.
        Sending = "sending",
        /// The connection has become a tunnel to an upstream.
        Tunnel = "tunnel",
    }
}
