// SPDX-License-Identifier: MIT OR Apache-2.0
//! The texts of a record: those that nginx has of a request, and those that options ask for.

use std::borrow::Cow;

use anyhow::Context as _;
use anyhow::Result;

use crate::bpf::types;
use crate::bpf::types::limit;

/// The texts of a request, with their names in nginx.
#[derive(Debug, Default)]
pub struct Texts<'a> {
    /// `r->method_name`
    pub method: WireText<'a>,
    /// `r->unparsed_uri`
    pub request_uri: WireText<'a>,
    /// `r->uri`
    pub uri: WireText<'a>,
    /// `r->headers_in.host`
    pub host: WireText<'a>,
    /// `r->http_protocol`
    pub protocol: WireText<'a>,
    /// `c->addr_text`
    pub remote_addr: WireText<'a>,
    /// The path of `c->local_sockaddr`.
    pub local_path: WireText<'a>,
    /// `hc->ssl_servername`
    pub server_name: WireText<'a>,
    /// The value of the header `traceparent`.
    pub traceparent: WireText<'a>,
    /// `u->resolved->host`
    pub resolved: WireText<'a>,
    /// The values of variables, in the order of `Extras`.
    pub variables: [WireText<'a>; ASKED_MAX],
    /// The values of headers, likewise.
    pub headers: [WireText<'a>; ASKED_MAX],
}

impl<'a> Texts<'a> {
    /// Reads the texts of a record from the bytes of all texts. Fails when a text is not within
    /// them.
    pub fn read(record: &types::request_record, all: &'a [u8]) -> Result<Self> {
        /* There is no `..`, so that a text that is added to wire.h can't be forgotten here. */
        let types::request_texts {
            method,
            request_uri,
            uri,
            host,
            protocol,
            remote_addr,
            local_path,
            server_name,
            traceparent,
            resolved,
            variables,
            headers,
        } = record.texts;
        let text = |text| WireText::read(all, text);
        let asked = |texts: [types::text; ASKED_MAX]| -> Result<[WireText<'a>; ASKED_MAX]> {
            let mut values = [WireText::default(); ASKED_MAX];
            for (value, from) in values.iter_mut().zip(texts) {
                *value = text(from)?;
            }
            Ok(values)
        };
        Ok(Self {
            method: text(method)?,
            request_uri: text(request_uri)?,
            uri: text(uri)?,
            host: text(host)?,
            protocol: text(protocol)?,
            remote_addr: text(remote_addr)?,
            local_path: text(local_path)?,
            server_name: text(server_name)?,
            traceparent: text(traceparent)?,
            resolved: text(resolved)?,
            variables: asked(variables)?,
            headers: asked(headers)?,
        })
    }
}

/// A text of nginx.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireText<'a> {
    /// The bytes of the text; empty when nginx has no such text.
    pub bytes: &'a [u8],
    /// True when nginx's text is longer than these bytes.
    pub is_cut: bool,
}

impl<'a> WireText<'a> {
    /// Reads one text. Fails when it is not within the bytes.
    pub fn read(all: &'a [u8], text: types::text) -> Result<Self> {
        let (at, len) = (usize::from(text.at), usize::from(text.len & !TEXT_CUT));
        let bytes = all
            .get(at..at + len)
            .with_context(|| format!("no text of {len} bytes at {at}"))?;
        let is_cut = text.len & TEXT_CUT != 0;
        Ok(Self { bytes, is_cut })
    }

    /// Returns the text, with U+FFFD in place of bytes that are not UTF-8. `None` when it is empty.
    pub fn lossy(self) -> Option<Cow<'a, str>> {
        lossy(self.bytes)
    }
}

/// Returns a text of nginx, with U+FFFD in place of bytes that are not UTF-8. `None` when it is
/// empty.
pub fn lossy(bytes: &[u8]) -> Option<Cow<'_, str>> {
    Some(String::from_utf8_lossy(bytes)).filter(|text| !text.is_empty())
}

/// The most variables, and the most headers, that a record has.
const ASKED_MAX: usize = limit::ASKED_MAX.0 as usize;

/// The flag in `text.len` that marks a cut text.
pub const TEXT_CUT: u16 = types::text_flag::TEXT_CUT.0 as u16;
