// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes of the ring buffer to events: every length checked, nothing read past the record.
//! What the numbers mean is `request.rs`'s.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use plain::Plain;

use crate::bpf::types;

/// A request record, taken apart.
#[derive(Debug)]
pub struct RequestEvent<'a> {
    /// The numbers.
    pub record: types::request_record,
    /// Upstream attempts, in order.
    pub attempts: Vec<AttemptEvent<'a>>,
    /// Those with an upstream, in the order of their first connects.
    pub subrequests: Vec<SubrequestEvent<'a>>,
    /// The bytes of all texts: `text()` finds one of them.
    pub texts: &'a [u8],
}

impl<'a> RequestEvent<'a> {
    /// The bytes of one of `record.texts`; empty when the request has no such text.
    pub fn text(&self, text: types::text) -> &'a [u8] {
        place(text, self.texts).unwrap_or_default()
    }
}

impl types::text {
    /// Whether nginx has a longer text than these bytes.
    pub fn is_cut(self) -> bool {
        self.len & TEXT_CUT != 0
    }
}

/// One upstream attempt.
#[derive(Debug)]
pub struct AttemptEvent<'a> {
    /// The numbers.
    pub record: types::attempt,
    /// `u->state->peer`; empty when no peer was chosen.
    pub addr: &'a [u8],
}

impl AttemptEvent<'_> {
    /// Whether its socket told anything.
    pub fn was_seen(&self) -> bool {
        self.record.flags & types::attempt_flag::ATTEMPT_SEEN.0 != 0
    }
}

/// One subrequest that had an upstream.
#[derive(Debug)]
pub struct SubrequestEvent<'a> {
    /// The numbers.
    pub record: types::subrequest,
    /// Its attempts, in order.
    pub attempts: Vec<AttemptEvent<'a>>,
    /// `r->uri`
    pub uri: &'a [u8],
}

/// The flag in `text.len`.
const TEXT_CUT: u16 = types::text_flag::TEXT_CUT.0 as u16;

// SAFETY: the records of wire.h hold plain integers only, and no implicit padding (-Wpadded).
unsafe impl Plain for types::request_record {}
// SAFETY: as above.
unsafe impl Plain for types::attempt {}
// SAFETY: as above.
unsafe impl Plain for types::subrequest {}
// SAFETY: as above.
unsafe impl Plain for types::text {}
// SAFETY: as above.
unsafe impl Plain for types::request_texts {}

/// The two members that every record begins with.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Header {
    /// `enum record_kind`
    kind: u32,
    /// Bytes of the whole record.
    size: u32,
}

// SAFETY: two integers.
unsafe impl Plain for Header {}

/// The first record of `bytes`, and the bytes behind it. Fails when it is cut short.
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

/// Takes one record apart; every byte of its tail must belong to something.
///
/// Fails when it is of an unknown kind, or when its lengths contradict each other.
pub fn decode(bytes: &[u8]) -> Result<RequestEvent<'_>> {
    let record: types::request_record = copy(bytes)?;
    ensure!(
        types::record_kind(record.kind) == types::record_kind::RECORD_REQUEST,
        "a record of kind {}",
        record.kind
    );
    let mut tail = Tail(&bytes[size_of::<types::request_record>()..]);
    let attempts = tail.attempts(record.attempts_len)?;
    let texts = tail.take(record.texts_len.into())?;
    for text in each_text(&record.texts) {
        place(*text, texts).with_context(|| format!("no text at {text:?}"))?;
    }
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

/// Where a text is in the bytes of all; `None` when it is not all in there.
fn place(text: types::text, texts: &[u8]) -> Option<&[u8]> {
    let (at, len) = (usize::from(text.at), usize::from(text.len & !TEXT_CUT));
    texts.get(at..at + len)
}

/// The members of `request_texts`, all of which are a `text`.
fn each_text(texts: &types::request_texts) -> &[types::text] {
    // SAFETY: it is plain.
    let bytes = unsafe { plain::as_bytes(texts) };
    plain::slice_from_bytes(bytes).unwrap_or_default()
}

/// What is left of a record.
struct Tail<'a>(&'a [u8]);

impl<'a> Tail<'a> {
    /// The next `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .with_context(|| format!("{len} bytes wanted, {} are there", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `len` attempts, each with its address.
    fn attempts(&mut self, len: u16) -> Result<Vec<AttemptEvent<'a>>> {
        let attempts = (0..len).map(|_| {
            let record: types::attempt = copy(self.take(size_of::<types::attempt>())?)?;
            let addr = self.take(record.addr_len.into())?;
            Ok(AttemptEvent { record, addr })
        });
        attempts.collect()
    }

    /// The next subrequest, with all that belongs to it.
    fn subrequest(&mut self) -> Result<SubrequestEvent<'a>> {
        let record: types::subrequest = copy(self.take(size_of::<types::subrequest>())?)?;
        Ok(SubrequestEvent {
            record,
            attempts: self.attempts(record.attempts_len)?,
            uri: self.take(record.uri_len.into())?,
        })
    }
}

/// A copy: the ring buffer aligns records to eight bytes, but not what is packed into a batch.
fn copy<T: Plain + Default>(bytes: &[u8]) -> Result<T> {
    let mut value = T::default();
    value.copy_from_bytes(bytes).map_err(|_| {
        anyhow::anyhow!("{} bytes wanted, {} are there", size_of::<T>(), bytes.len())
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::decode;
    use super::split;
    use super::types;

    /// The bytes of a plain record.
    fn bytes<T: plain::Plain>(value: &T) -> Vec<u8> {
        // SAFETY: `Plain` types have no padding.
        unsafe { plain::as_bytes(value) }.to_vec()
    }

    /// A request with one attempt, a subrequest and some texts.
    fn request() -> (types::request_record, Vec<u8>) {
        let mut record = types::request_record {
            kind: types::record_kind::RECORD_REQUEST.0,
            attempts_len: 1,
            subrequests_len: 1,
            ..Default::default()
        };
        record.texts_len = 5;
        record.texts.method = types::text { at: 0, len: 3 };
        record.texts.uri = types::text { at: 3, len: 2 };
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

    /// The record and its tail, as the ring buffer has them.
    fn whole(record: &types::request_record, tail: &[u8]) -> Vec<u8> {
        let mut all = bytes(record);
        all.extend(tail);
        all
    }

    /// Check that every part of a request is found, and what follows it is left.
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
        let texts = event.record.texts;
        assert_eq!(event.text(texts.method), b"GET");
        assert_eq!(event.text(texts.request_uri), b"");
        assert_eq!(event.text(texts.uri), b"/x");
        assert_eq!(event.text(texts.host), b"x");
    }

    /// Check that the flag of a text that was cut is no part of its length.
    #[test]
    fn cut_text() {
        let (mut record, tail) = request();
        record.texts.uri.len |= super::TEXT_CUT;
        let all = whole(&record, &tail);
        let event = decode(&all).unwrap();
        let texts = event.record.texts;
        assert_eq!(event.text(texts.uri), b"/x");
        assert!(texts.uri.is_cut() && !texts.method.is_cut());
    }

    /// Check that every member of the texts is looked at, and nothing else.
    #[test]
    fn all_texts() {
        let texts = types::request_texts::default();
        assert_eq!(size_of_val(super::each_text(&texts)), size_of_val(&texts));
    }

    /// Check that a record cut anywhere is an error and no panic.
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
