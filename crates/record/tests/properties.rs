// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of every record: it is read as it was written, it is never longer than the limit when
//! it is cut, and no redacted secret is left.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::Generator;
use common::Random;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Format;
use ngx_bpf_record::MAX_LINE_MIN;
use ngx_bpf_record::Place;
use ngx_bpf_record::Record;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::Request;
use ngx_bpf_record::Subrequest;
use ngx_bpf_record::append_blocked;
use ngx_bpf_record::append_line;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::text::Text;
use ngx_bpf_record::limits;
use ngx_bpf_record::redact::DEFAULT_KEYS;
use ngx_bpf_record::schema;
use ngx_bpf_record::values::Cut;
use serde_json::Value;

/// The number of records in each test.
const RECORDS: usize = 400;

/// Returns the formats, each with the schema that its lines must satisfy if they are JSON.
fn formats() -> [(Box<dyn Format>, Option<jsonschema::Validator>); 3] {
    let validator = |schema| Some(jsonschema::validator_for(&schema).unwrap());
    [
        (Box::new(Json), validator(schema::record())),
        (Box::new(Otel::new(None)), validator(schema::otel())),
        (Box::new(Text), None),
    ]
}

/// Returns the line of a record; a request may be cut.
fn line(format: &mut dyn Format, record: &mut Record<'_>, max: Option<usize>) -> String {
    let mut line = Vec::new();
    match record {
        Record::Request(request) => append_line(format, &mut line, request, max).unwrap(),
        Record::Connection(connection) => format.connection(&mut line, connection).unwrap(),
        Record::Lost(lost) => format.lost(&mut line, lost).unwrap(),
        Record::Blocked(blocked) => format.blocked(&mut line, blocked).unwrap(),
    }
    String::from_utf8(line).unwrap()
}

/// Checks that a line is one line, that it does nothing to a terminal, and that it satisfies its
/// schema.
fn assert_line(line: &str, validator: Option<&jsonschema::Validator>) {
    let text = line.strip_suffix('\n').unwrap();
    assert!(!text.chars().any(is_unsafe), "{line}");
    if let Some(validator) = validator {
        let value = serde_json::from_str(text).unwrap();
        if let Some(error) = validator.iter_errors(&value).next() {
            panic!("{error}, at {}: {line}", error.instance_path());
        }
    }
}

/// Check that the line of a blocked worker is no longer than the least limit, in every format, however
/// long and hostile the names on its stacks are; that it satisfies its schema, and is read as it was written.
#[test]
fn blocked_workers() {
    for (mut format, validator) in formats() {
        for character in ["\u{1b}", "x"] {
            let mut blocked: Blocked<'_> = schema::longest_of("blocked");
            let frame = character.repeat(limits::FRAME_MAX);
            blocked.kernel_stack = vec![frame.clone(); limits::FRAMES_MAX];
            blocked.user_stack = vec![frame; limits::FRAMES_MAX];
            let mut whole = Vec::new();
            blocked.stacks_cut = false;
            append_blocked(&mut *format, &mut whole, &mut blocked, None).unwrap();
            assert_line(std::str::from_utf8(&whole).unwrap(), validator.as_ref());
            assert!(!blocked.stacks_cut && blocked.user_stack.len() == limits::FRAMES_MAX);
            let mut cut = Vec::new();
            append_blocked(&mut *format, &mut cut, &mut blocked, Some(MAX_LINE_MIN)).unwrap();
            assert!(cut.len() <= MAX_LINE_MIN, "{}", cut.len());
            assert_line(std::str::from_utf8(&cut).unwrap(), validator.as_ref());
            assert_eq!(blocked.stacks_cut, whole.len() > MAX_LINE_MIN);
        }
    }
    let blocked: Blocked<'_> = schema::longest_of("blocked");
    let mut record = Record::Blocked(Box::new(blocked.clone()));
    let read: Record<'_> = serde_json::from_str(&line(&mut Json, &mut record, None)).unwrap();
    assert_eq!(read, Record::Blocked(Box::new(blocked)));
}

/// Check that JSON is read as it was written, and that the lines of each format satisfy its schema.
#[test]
fn round_trip() {
    let mut generator = Generator::new(1);
    let mut formats = formats();
    for _ in 0..RECORDS {
        let value = generator.record();
        let mut record: Record<'_> = serde_json::from_value(value.clone()).unwrap();
        for (format, validator) in &mut formats {
            assert_line(&line(&mut **format, &mut record, None), validator.as_ref());
        }
        let json = line(&mut Json, &mut record, None);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        assert_eq!(serde_json::from_str::<Record<'_>>(&json).unwrap(), record);
    }
}

/// Check that a line is never longer than the limit, that it is still a record, that its texts are
/// the beginnings of the original ones, and that `truncated` names those that are shorter, and no others.
#[test]
fn cut() {
    let mut generator = Generator::new(2);
    let mut formats = formats();
    let mut seen = BTreeSet::new();
    for _ in 0..RECORDS {
        let Record::Request(request) = serde_json::from_value(generator.record()).unwrap() else {
            continue;
        };
        let max = MAX_LINE_MIN + generator.random.below(MAX_LINE_MIN);
        for (format, validator) in &mut formats {
            let mut record = Record::Request(request.clone());
            let is_short = line(&mut **format, &mut record, None).len() <= max;
            let line = line(&mut **format, &mut record, Some(max));
            assert!(line.len() <= max, "{} bytes, {max} wanted", line.len());
            assert_line(&line, validator.as_ref());
            let Record::Request(cut) = record else {
                panic!("a request became another record");
            };
            let names = assert_cut(&request, &cut);
            assert_eq!(names.is_empty(), is_short, "{names:?}");
            seen.extend(names);
        }
    }
    /* Every key that `append_line()` can cut was: the others are cut where they are read. */
    let elsewhere = [
        Cut::RemoteAddr,
        Cut::ServerProtocol,
        Cut::UpstreamAddr,
        Cut::Config,
        Cut::Tcp,
    ];
    /* They are left out of the longest records only: `truncate::tests::longest_record`. */
    seen.remove(Cut::Config.name());
    seen.remove(Cut::Tcp.name());
    let here = Cut::ALL.iter().filter(|cut| !elsewhere.contains(cut));
    assert_eq!(seen, here.map(|cut| cut.name()).collect());
}

/// Checks a request that was cut, and returns the keys that were: exactly these are added to `truncated`.
fn assert_cut(whole: &Request<'_>, cut: &Request<'_>) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    let mut note = |name, is_cut| {
        if is_cut {
            names.insert(name);
        }
    };
    for (name, whole, cut) in [
        ("request_method", &whole.request_method, &cut.request_method),
        ("request_uri", &whole.request_uri, &cut.request_uri),
        ("uri", &whole.uri, &cut.uri),
        ("http_host", &whole.http_host, &cut.http_host),
        (
            "ssl_server_name",
            &whole.tls.ssl_server_name,
            &cut.tls.ssl_server_name,
        ),
    ] {
        assert_beginning(whole.as_deref(), cut.as_deref());
        note(name, whole != cut);
    }
    assert_cut_place(&whole.place, &cut.place, &mut note);
    assert!(whole.subrequests.len() >= cut.subrequests.len());
    for (whole, cut) in whole.subrequests.iter().zip(&cut.subrequests) {
        assert_beginning(whole.uri.as_deref(), cut.uri.as_deref());
        let uncut = Subrequest {
            uri: whole.uri.clone(),
            ..cut.clone()
        };
        assert_eq!(*whole, uncut);
    }
    note("subrequests", whole.subrequests != cut.subrequests);
    if let Some((last, kept)) = cut.upstreams.split_last() {
        assert_eq!(Some(last), whole.upstreams.last());
        assert!(whole.upstreams.starts_with(kept));
    }
    note("upstreams", whole.upstreams != cut.upstreams);
    note("tcp", whole.tcp != cut.tcp);
    assert!(whole.tcp == cut.tcp || cut.tcp.is_empty());
    let noted = |request: &Request<'_>| -> BTreeSet<&'static str> {
        request.truncated.iter().map(|cut| cut.name()).collect()
    };
    assert_eq!(noted(cut), &noted(whole) | &names);
    names
}

/// Checks the place of a request that was cut, whose keys may also be left out, and notes those that were.
fn assert_cut_place(whole: &Place<'_>, cut: &Place<'_>, note: &mut dyn FnMut(&'static str, bool)) {
    /* These may also be left out. */
    for (name, whole, cut) in [
        ("location", &whole.location, &cut.location),
        ("server_name", &whole.server_name, &cut.server_name),
        ("upstream_name", &whole.upstream_name, &cut.upstream_name),
    ] {
        assert_beginning(cut.as_ref().and(whole.as_deref()), cut.as_deref());
        note(name, whole != cut);
    }
    for (name, whole, cut) in [
        ("variables", &whole.variables, &cut.variables),
        ("headers", &whole.headers, &cut.headers),
    ] {
        for (key, value) in cut {
            assert_beginning(whole.get(key).map(|whole| &**whole), Some(value));
        }
        assert!(cut.is_empty() || cut.len() == whole.len());
        note(name, whole != cut);
    }
    note("config", whole.config != cut.config);
    assert!(whole.config == cut.config || cut.config.is_empty());
}

/// Checks that a text was cut at its end, if at all, and that not all of it was.
fn assert_beginning(whole: Option<&str>, cut: Option<&str>) {
    let is_beginning = match (whole, cut) {
        (Some(whole), Some(cut)) => whole.starts_with(cut) && whole.is_empty() == cut.is_empty(),
        (whole, cut) => whole == cut,
    };
    assert!(is_beginning, "{whole:?}, {cut:?}");
}

/// The words of queries: secret keys and others, values, and separators, encoded or not.
const WORDS: [&str; 20] = [
    "sig",
    "s%69g",
    "Signature",
    "%53ignature",
    "SIG",
    "a",
    "%",
    "%3",
    "=",
    "%3d",
    "%3D",
    "&",
    "%26",
    ";",
    "%3b",
    "?",
    "%3f",
    "/",
    "SECRET",
    "%25",
];

/// Returns a random uri. Any value may follow a secret key.
fn uri(random: &mut Random) -> String {
    let words = (0..random.below(16)).map(|_| *random.one_of(&WORDS));
    format!("/{}", words.collect::<String>())
}

/// Returns the bytes of a text, decoded once.
fn decoded(uri: &str) -> Vec<u8> {
    let bytes = uri.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let pair = digit(at + 1)
            .zip(digit(at + 2))
            .filter(|_| bytes[at] == b'%');
        decoded.push(pair.map_or(bytes[at], |(high, low)| (high << 4 | low) as u8));
        at += if pair.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Checks that every secret key in a redacted uri has the value `REDACTED`, or none.
fn assert_redacted(uri: &str, was: &str) {
    let decoded = decoded(uri);
    let query = decoded.split(|byte| *byte == b'?').skip(1);
    for argument in query.flat_map(|part| part.split(|byte| matches!(byte, b'&' | b';'))) {
        let mut parts = argument.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next().unwrap(), parts.next());
        let is_secret = DEFAULT_KEYS
            .split(',')
            .any(|secret| secret.as_bytes() == key);
        let is_redacted = value.is_none_or(|value| value == b"REDACTED");
        assert!(!is_secret || is_redacted, "{uri} of {was}");
    }
}

/// Check that no value of a secret key is left in any uri, and that a second redaction changes
/// nothing.
#[test]
fn redaction() {
    let mut random = Random(3);
    let keys = Redaction::Keys(DEFAULT_KEYS.split(',').map(str::to_owned).collect());
    for _ in 0..100 * RECORDS {
        let uri = uri(&mut random);
        let request = || Request {
            request_uri: Some(uri.as_str().into()),
            uri: Some(uri.as_str().into()),
            ..Default::default()
        };
        for redaction in [&keys, &Redaction::Query] {
            let mut once = request();
            redaction.apply(&mut once);
            let mut twice = once.clone();
            redaction.apply(&mut twice);
            assert_eq!(once, twice, "{uri}");
            for left in [&once.request_uri, &once.uri] {
                let left = left.as_deref().unwrap();
                match redaction {
                    Redaction::Keys(_) => assert_redacted(left, &uri),
                    Redaction::Query => assert!(!decoded(left).contains(&b'?'), "{uri}"),
                }
            }
        }
    }
}
