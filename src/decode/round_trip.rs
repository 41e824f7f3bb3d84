// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of any content, written as BPF writes them and decoded again.

use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::proptest;

use crate::bpf::types;
use crate::decode::clock::Clock;
use crate::decode::request::request;
use crate::decode::wire::decode;
use crate::decode::wire::split;

/// The content of an attempt: its address, and numbers for its members.
type AttemptContent = (Vec<u8>, u64, u32);

/// The content of a subrequest: its attempts, its uri, and its status.
type SubrequestContent = (Vec<AttemptContent>, Vec<u8>, u32);

/// Returns up to `max` attempts.
fn attempts(max: usize) -> impl Strategy<Value = Vec<AttemptContent>> {
    vec(
        (vec(any::<u8>(), 0..128), any::<u64>(), any::<u32>()),
        0..=max,
    )
}

/// Returns up to four subrequests.
fn subrequests() -> impl Strategy<Value = Vec<SubrequestContent>> {
    vec((attempts(4), vec(any::<u8>(), 0..512), any::<u32>()), 0..4)
}

/// Appends a plain value.
fn append<T: plain::Plain>(bytes: &mut Vec<u8>, value: &T) {
    // SAFETY: `Plain` types have no padding.
    bytes.extend(unsafe { plain::as_bytes(value) });
}

/// Appends attempts, each with its address.
fn append_attempts(bytes: &mut Vec<u8>, attempts: &[AttemptContent]) {
    for (addr, ns, flags) in attempts {
        let attempt = types::attempt {
            connect_ns: *ns,
            status: *flags % 1000,
            flags: *flags,
            addr_len: u16::try_from(addr.len()).unwrap(),
            ..Default::default()
        };
        append(bytes, &attempt);
        bytes.extend(addr);
    }
}

/// Returns the record of a request with this content, and the bytes of a record after it.
fn written(
    texts: &[Vec<u8>; 3],
    attempts: &[AttemptContent],
    subrequests: &[SubrequestContent],
    numbers: [u64; 4],
) -> Vec<u8> {
    let mut record = types::request_record {
        kind: types::record_kind::RECORD_REQUEST.0,
        attempts_len: u16::try_from(attempts.len()).unwrap(),
        subrequests_len: u16::try_from(subrequests.len()).unwrap(),
        ended_ns: numbers[0],
        request_first_ns: numbers[1],
        response_last_ns: numbers[2],
        status: numbers[3] as u32,
        flags: (numbers[3] >> 32) as u32,
        ..Default::default()
    };
    let mut at = 0;
    for (text, bytes) in [
        (&mut record.texts.method, &texts[0]),
        (&mut record.texts.request_uri, &texts[1]),
        (&mut record.texts.host, &texts[2]),
    ] {
        let len = u16::try_from(bytes.len()).unwrap();
        *text = types::text { at, len };
        at += len;
    }
    record.texts_len = at;
    let mut tail = Vec::new();
    append_attempts(&mut tail, attempts);
    tail.extend(texts.concat());
    for (attempts, uri, status) in subrequests {
        let subrequest = types::subrequest {
            status: *status,
            attempts_len: u16::try_from(attempts.len()).unwrap(),
            uri_len: u16::try_from(uri.len()).unwrap(),
            ..Default::default()
        };
        append(&mut tail, &subrequest);
        append_attempts(&mut tail, attempts);
        tail.extend(uri);
    }
    record.size = u32::try_from(size_of_val(&record) + tail.len()).unwrap();
    let mut bytes = Vec::new();
    append(&mut bytes, &record);
    bytes.extend(tail);
    bytes.extend(b"next");
    bytes
}

proptest! {
    /// Check that a record of any content is decoded to what was written, and that its meaning can be
    /// computed: no number underflows, whatever BPF sends.
    #[test]
    fn same(
        texts in [vec(any::<u8>(), 0..64), vec(any::<u8>(), 0..4096), vec(any::<u8>(), 0..512)],
        attempts in attempts(8),
        subrequests in subrequests(),
        numbers in any::<[u64; 4]>(),
    ) {
        let bytes = written(&texts, &attempts, &subrequests, numbers);
        let (record, rest) = split(&bytes).unwrap();
        assert_eq!(rest, b"next");
        let event = decode(record).unwrap();
        assert_eq!(event.record.ended_ns, numbers[0]);
        let found = [event.texts.method, event.texts.request_uri, event.texts.host];
        assert!(found.iter().zip(&texts).all(|(found, text)| found.bytes == text));
        let is_same = |(found, (addr, ns, flags)): (&crate::decode::wire::AttemptEvent<'_>, &AttemptContent)| {
            found.addr == addr && found.record.connect_ns == *ns && found.record.flags == *flags
        };
        assert!(event.attempts.iter().zip(&attempts).all(is_same));
        for (found, (attempts, uri, status)) in event.subrequests.iter().zip(&subrequests) {
            assert!(found.uri == uri && found.record.status == *status);
            assert!(found.attempts.iter().zip(attempts).all(is_same));
        }
        let lens = (event.attempts.len(), event.subrequests.len());
        assert_eq!(lens, (attempts.len(), subrequests.len()));
        let _ = request(&event, Clock::now());
    }

    /// Check that bytes at random, and a record in which bytes were changed, cause no panic.
    #[test]
    fn any_bytes(at in any::<[u16; 4]>(), with in any::<[u8; 4]>(), cut in any::<u16>()) {
        let texts = [b"GET".to_vec(), b"/a".to_vec(), b"h".to_vec()];
        let attempts = [(b"a:1".to_vec(), 1, 2), (b"b:2".to_vec(), 3, 4)];
        let subrequests = [(attempts.to_vec(), b"/s".to_vec(), 200)];
        let mut bytes = written(&texts, &attempts, &subrequests, [4, 3, 2, 1]);
        let len = bytes.len();
        for (at, with) in at.into_iter().zip(with) {
            bytes[usize::from(at) % len] = with;
        }
        bytes.truncate(usize::from(cut) % (len + 1));
        if let Ok((record, _)) = split(&bytes)
            && let Ok(event) = decode(record)
        {
            let _ = request(&event, Clock::now());
        }
    }
}
