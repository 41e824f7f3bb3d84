// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the bytes of the ring buffer to events. Every length is checked, and no byte outside of
//! the record is read. `request.rs` interprets the numbers.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::limits;
use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::limit;
use crate::decode::texts::Texts;

/// A decoded request record.
#[derive(Debug)]
pub struct RequestEvent<'a> {
    /// The numbers of the record.
    pub record: types::request_record,
    /// The attempts at upstreams, in order.
    pub attempts: Vec<AttemptEvent<'a>>,
    /// The subrequests with an upstream, in the order of their first connects.
    pub subrequests: Vec<SubrequestEvent<'a>>,
    /// The texts that nginx has of the request.
    pub texts: Texts<'a>,
}

/// One attempt at an upstream.
#[derive(Debug)]
pub struct AttemptEvent<'a> {
    /// The numbers of the attempt.
    pub record: types::attempt,
    /// The name of the peer (`u->state->peer`); empty when no peer was chosen.
    pub addr: &'a [u8],
}

impl AttemptEvent<'_> {
    /// Returns whether a flag of wire.h is set.
    pub fn has(&self, flag: types::attempt_flag) -> bool {
        self.record.flags & flag.0 != 0
    }

    /// Returns whether this is an attempt. nginx puts a state without a peer between the upstreams of
    /// two internal redirects.
    pub fn was_tried(&self) -> bool {
        !self.addr.is_empty() || self.has(types::attempt_flag::ATTEMPT_SEEN)
    }

    /// Returns whether it began after the response was sent, as one of a `post_action` does.
    pub fn is_after(&self, answered_ns: Option<u64>) -> bool {
        answered_ns.is_some_and(|answered| self.record.connect_ns >= answered)
    }
}

/// One subrequest that had an upstream.
#[derive(Debug)]
pub struct SubrequestEvent<'a> {
    /// The numbers of the subrequest.
    pub record: types::subrequest,
    /// The attempts, in order.
    pub attempts: Vec<AttemptEvent<'a>>,
    /// `r->uri`
    pub uri: &'a [u8],
}

/* The limits of BPF are those that the documentation of the record states. */
const _: () = {
    assert!(limit::METHOD_MAX.0 as usize == limits::METHOD_MAX);
    assert!(limit::URI_MAX.0 as usize == limits::URI_MAX);
    assert!(limit::HOST_MAX.0 as usize == limits::HOST_MAX);
    assert!(limit::PROTOCOL_MAX.0 as usize == limits::PROTOCOL_MAX);
    assert!(limit::ADDR_MAX.0 as usize == limits::ADDR_MAX);
    assert!(limit::ASKED_MAX.0 as usize == limits::ASKED_MAX);
    assert!(limit::ASKED_NAME_MAX.0 as usize == limits::ASKED_NAME_MAX);
    assert!(limit::ASKED_VALUE_MAX.0 as usize == limits::ASKED_VALUE_MAX);
    assert!(limit::PLACE_MAX.0 as usize == limits::PLACE_MAX);
    assert!(limit::SUBREQUEST_URI_MAX.0 as usize == limits::SUBREQUEST_URI_MAX);
    assert!(limit::ATTEMPTS_MAX.0 as usize == limits::UPSTREAMS_MAX);
    assert!(limit::SUBREQUESTS_MAX.0 as usize == limits::SUBREQUESTS_MAX);
    assert!(limit::SUBREQUEST_ATTEMPTS_MAX.0 as usize == limits::SUBREQUEST_UPSTREAMS_MAX);
};

// SAFETY: the records of wire.h hold plain integers only, and no implicit padding (-Wpadded).
unsafe impl Plain for types::request_record {}
// SAFETY: as above.
unsafe impl Plain for types::attempt {}
// SAFETY: as above.
unsafe impl Plain for types::subrequest {}

/// The two members that every record begins with.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Header {
    /// `enum record_kind`
    kind: u32,
    /// The size of the whole record in bytes.
    size: u32,
}

// SAFETY: two integers.
unsafe impl Plain for Header {}

/// Splits `bytes` after the first record. Fails when the record is cut short.
pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let header: Header = copy(bytes)?;
    let size = usize::try_from(header.size)?;
    ensure!(
        size >= size_of::<Header>() && size <= bytes.len(),
        "a record of {size} bytes, {} are there",
        bytes.len()
    );
    Ok(bytes.split_at(size))
}

/// Returns the kind of a record.
pub fn kind(bytes: &[u8]) -> Result<types::record_kind> {
    Ok(types::record_kind(copy::<Header>(bytes)?.kind))
}

/// Decodes the record of a request. Every byte after its numbers must belong to a text, an attempt or a
/// subrequest.
///
/// Fails when the record is of an unknown kind, or when its lengths contradict each other.
pub fn decode(bytes: &[u8]) -> Result<RequestEvent<'_>> {
    let record: types::request_record = copy(bytes)?;
    ensure!(
        types::record_kind(record.kind) == types::record_kind::RECORD_REQUEST,
        "a record of kind {}",
        record.kind
    );
    let mut tail = Tail(&bytes[size_of::<types::request_record>()..]);
    let attempts = tail.attempts(record.attempts_len)?;
    let texts = Texts::read(&record, tail.take(record.texts_len.into())?)?;
    let subrequests = (0..record.subrequests_len).map(|_| tail.subrequest());
    let subrequests = subrequests.collect::<Result<_>>()?;
    ensure!(tail.0.is_empty(), "{} bytes too many", tail.0.len());
    Ok(RequestEvent {
        record,
        attempts,
        subrequests,
        texts,
    })
}

/// The bytes of a record that were not decoded yet.
struct Tail<'a>(&'a [u8]);

impl<'a> Tail<'a> {
    /// Takes the next `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .with_context(|| format!("{len} bytes expected, {} left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Takes the next `len` attempts, each with its address.
    fn attempts(&mut self, len: u16) -> Result<Vec<AttemptEvent<'a>>> {
        let attempts = (0..len).map(|_| {
            let record: types::attempt = copy(self.take(size_of::<types::attempt>())?)?;
            let addr = self.take(record.addr_len.into())?;
            Ok(AttemptEvent { record, addr })
        });
        attempts.collect()
    }

    /// Takes the next subrequest, with its attempts and its uri.
    fn subrequest(&mut self) -> Result<SubrequestEvent<'a>> {
        let record: types::subrequest = copy(self.take(size_of::<types::subrequest>())?)?;
        Ok(SubrequestEvent {
            record,
            attempts: self.attempts(record.attempts_len)?,
            uri: self.take(record.uri_len.into())?,
        })
    }
}

/// Copies a value, because only the ring buffer aligns records to eight bytes; a batch does not.
pub fn copy<T: Plain + Default>(bytes: &[u8]) -> Result<T> {
    let mut value = T::default();
    value
        .copy_from_bytes(bytes)
        .map_err(|_| anyhow::anyhow!("{} bytes expected, {} left", size_of::<T>(), bytes.len()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::decode;
    use super::split;
    use super::types;

    /// Returns the bytes of a plain record.
    fn bytes<T: plain::Plain>(value: &T) -> Vec<u8> {
        // SAFETY: `Plain` types have no padding.
        unsafe { plain::as_bytes(value) }.to_vec()
    }

    /// Returns a request with one attempt, a subrequest and some texts.
    fn request() -> (types::request_record, Vec<u8>) {
        let mut record = types::request_record {
            kind: types::record_kind::RECORD_REQUEST.0,
            attempts_len: 1,
            subrequests_len: 1,
            ..Default::default()
        };
        record.texts_len = 5;
        record.texts.method = types::text { at: 0, len: 3 };
        let len = 2 | crate::decode::texts::TEXT_CUT;
        record.texts.uri = types::text { at: 3, len };
        record.texts.host = types::text { at: 4, len: 1 };
        let mut tail = Vec::new();
        tail.extend(bytes(&types::attempt {
            addr_len: 4,
            ..Default::default()
        }));
        tail.extend(b"addrGET/x");
        tail.extend(bytes(&types::subrequest {
            attempts_len: 1,
            uri_len: 2,
            ..Default::default()
        }));
        tail.extend(bytes(&types::attempt {
            addr_len: 3,
            ..Default::default()
        }));
        tail.extend(b"two/y");
        record.size = u32::try_from(size_of_val(&record) + tail.len()).unwrap();
        (record, tail)
    }

    /// Returns the bytes of a record and its tail, as in the ring buffer.
    fn whole(record: &types::request_record, tail: &[u8]) -> Vec<u8> {
        let mut all = bytes(record);
        all.extend(tail);
        all
    }

    /// Check that every part of a request is decoded, and that the bytes after it are left.
    #[test]
    fn request_parts() {
        let (record, tail) = request();
        let mut all = whole(&record, &tail);
        all.extend(b"next");
        let (record, rest) = split(&all).unwrap();
        assert_eq!(rest, b"next");
        let event = decode(record).unwrap();
        assert_eq!(event.attempts[0].addr, b"addr");
        assert_eq!(event.subrequests[0].attempts[0].addr, b"two");
        assert_eq!(event.subrequests[0].uri, b"/y");
        let texts = event.texts;
        let found = [texts.method, texts.request_uri, texts.uri, texts.host];
        let found = found.map(|text| (text.bytes, text.is_cut));
        let expected = [
            (&b"GET"[..], false),
            (b"", false),
            (b"/x", true),
            (b"x", false),
        ];
        assert_eq!(found, expected);
    }

    /// Check that a record that is cut anywhere is an error and causes no panic.
    #[test]
    fn cut_short() {
        let (record, tail) = request();
        let all = whole(&record, &tail);
        for len in 0..all.len() {
            assert!(split(&all[..len]).is_err(), "{len}");
            assert!(decode(&all[..len]).is_err(), "{len}");
        }
    }

    /// Check that lengths that contradict each other are an error.
    #[test]
    fn contradictions() {
        let broken: [fn(&mut types::request_record); 9] = [
            |record| record.size = 0,
            |record| record.size = 4,
            |record| record.size += 1,
            |record| record.size -= 1,
            |record| record.kind = 99,
            |record| record.attempts_len = u16::MAX,
            |record| record.subrequests_len = 2,
            |record| record.texts_len += 1,
            |record| record.texts.traceparent.len = 6,
        ];
        for (n, change) in broken.into_iter().enumerate() {
            let (mut record, tail) = request();
            change(&mut record);
            let all = whole(&record, &tail);
            let decoded = split(&all).and_then(|(record, _)| decode(record).map(drop));
            assert!(decoded.is_err(), "{n}");
        }
    }
}
