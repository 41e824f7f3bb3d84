// SPDX-License-Identifier: MIT OR Apache-2.0
//! Redaction: secrets in query strings are removed from a request before it is formatted.

use std::borrow::Cow;

use crate::inflight::Inflight;
use crate::request::Request;

/// The keys whose values are redacted by default, as OpenTelemetry's semantic conventions ask for
/// (`url.query`), with commas between them.
pub const DEFAULT_KEYS: &str = "X-Amz-Signature,X-Amz-Credential,X-Amz-Security-Token,\
    AWSAccessKeyId,Signature,sig,X-Goog-Signature";

/// The text that replaces a value.
const REDACTED: &str = "REDACTED";

/// The part of a query string that is removed.
#[derive(Clone, Debug)]
pub enum Redaction {
    /// The values of these keys are replaced by `REDACTED`.
    Keys(Vec<String>),
    /// The whole query string is removed, with its question mark.
    Query,
}

/// The form of a uri.
#[derive(Clone, Copy)]
enum Form {
    /// The uri is written as the client sent it.
    Sent,
    /// The uri is decoded, as in `$uri`: its question marks, and some of its `&`, are characters
    /// that the client has encoded.
    Decoded,
}

impl Redaction {
    /// Redacts every uri of a request, and the uris in values that options ask for.
    pub fn apply(&self, request: &mut Request<'_>) {
        self.replace(&mut request.request_uri, Form::Sent);
        self.replace(&mut request.uri, Form::Decoded);
        for value in request.place.headers.values_mut() {
            self.replace_text(value, Form::Sent);
        }
        let variables = &mut request.place.variables;
        variables.retain(|name, value| self.keeps_variable(name, value));
        for subrequest in &mut request.subrequests {
            self.replace(&mut subrequest.uri, Form::Decoded);
        }
    }

    /// Redacts the uri of a request that has not ended.
    pub fn apply_to_inflight(&self, request: &mut Inflight<'_>) {
        self.replace(&mut request.request_uri, Form::Sent);
    }

    /// Redacts a uri.
    fn replace(&self, uri: &mut Option<Cow<'_, str>>, form: Form) {
        if let Some(uri) = uri
            && let Some(kept) = self.kept(uri, form)
        {
            *uri = Cow::Owned(kept);
        }
    }

    /// Redacts a text that may be a uri.
    fn replace_text(&self, text: &mut Cow<'_, str>, form: Form) {
        if let Some(kept) = self.kept(text, form) {
            *text = Cow::Owned(kept);
        }
    }

    /// Redacts a variable, which may be a query string or one of its values. Returns false when nothing is left
    /// of it.
    fn keeps_variable(&self, name: &str, value: &mut Cow<'_, str>) -> bool {
        if matches!(name, "args" | "query_string") {
            if let Some(kept) = self.kept(&format!("?{value}"), Form::Sent) {
                *value = Cow::Owned(kept.strip_prefix('?').unwrap_or_default().to_owned());
            }
        } else if let Some(key) = name.strip_prefix("arg_") {
            match self {
                Self::Keys(keys) if keys.iter().any(|known| known.eq_ignore_ascii_case(key)) => {
                    *value = Cow::Borrowed(REDACTED);
                }
                Self::Keys(_) => {}
                Self::Query => return false,
            }
        } else {
            self.replace_text(value, Form::Sent);
        }
        !value.is_empty()
    }

    /// Returns the redacted uri. `None` when nothing has to be removed.
    fn kept(&self, uri: &str, form: Form) -> Option<String> {
        match self {
            Self::Keys(keys) => without_values(uri, form, keys),
            Self::Query => units(uri)
                .find(|unit| unit.byte == b'?')
                .map(|unit| uri[..unit.at].to_owned()),
        }
    }
}

/// Returns the uri without the values of these keys. `None` when it has none of the keys. A value
/// ends before the next `&`. In a decoded uri an `&` may belong to the value, so the value is taken
/// to extend to the end of the uri. Encoded separators before a key count, too, because the query
/// may contain another uri.
fn without_values(uri: &str, form: Form, keys: &[String]) -> Option<String> {
    /* Most uris have no query. A question mark may be encoded. */
    if !uri.bytes().any(|byte| matches!(byte, b'?' | b'%')) {
        return None;
    }
    let mut kept = String::new();
    /* The position up to which `uri` was copied to `kept`. */
    let mut done = 0;
    /* The decoded beginning of a key, and whether there is one: not before the query nor within a value. */
    let (mut key, mut is_key) = (Vec::new(), false);
    let mut is_query = false;
    for unit in units(uri) {
        match unit.byte {
            _ if unit.at < done => {}
            b'?' => {
                is_query = true;
                is_key = true;
                key.clear();
            }
            _ if !is_query => {}
            b'&' | b';' => {
                is_key = true;
                key.clear();
            }
            b'=' => {
                let was_key = std::mem::take(&mut is_key);
                if was_key && keys.iter().any(|known| known.as_bytes() == key) {
                    kept.push_str(&uri[done..unit.end]);
                    kept.push_str(REDACTED);
                    let rest = match form {
                        Form::Sent => uri[unit.end..].find('&'),
                        Form::Decoded => None,
                    };
                    done = rest.map_or(uri.len(), |len| unit.end + len);
                }
            }
            byte if is_key => key.push(byte),
            _ => {}
        }
    }
    if done == 0 {
        return None;
    }
    kept.push_str(&uri[done..]);
    Some(kept)
}

/// One decoded byte of a uri, and its position.
struct Unit {
    /// The decoded byte.
    byte: u8,
    /// The position of its first byte in the uri.
    at: usize,
    /// The position after its last byte: one byte later, or three when it is encoded.
    end: usize,
}

/// Returns the bytes of a uri, decoded once.
fn units(uri: &str) -> impl Iterator<Item = Unit> {
    let bytes = uri.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut at = 0;
    std::iter::from_fn(move || {
        let plain = *bytes.get(at)?;
        let encoded = match plain {
            b'%' => digit(at + 1).zip(digit(at + 2)),
            _ => None,
        };
        let (byte, len) = match encoded {
            Some((high, low)) => (u8::try_from(high << 4 | low).ok()?, 3),
            None => (plain, 1),
        };
        let unit = Unit {
            byte,
            at,
            end: at + len,
        };
        at += len;
        Some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::DEFAULT_KEYS;
    use super::Redaction;
    use crate::request::Request;
    use crate::subrequest::Subrequest;

    /// Returns a redaction of these keys.
    fn keys(keys: &str) -> Redaction {
        Redaction::Keys(keys.split(',').map(str::to_owned).collect())
    }

    /// Returns a redacted uri, first as one that the client sent and then as a decoded one.
    fn kept(redaction: &Redaction, uri: &str) -> (String, String) {
        let mut request = Request {
            request_uri: Some(uri.into()),
            uri: Some(uri.into()),
            subrequests: vec![Subrequest {
                uri: Some(uri.into()),
                ..Default::default()
            }],
            ..Default::default()
        };
        redaction.apply(&mut request);
        assert_eq!(request.subrequests[0].uri, request.uri);
        let [sent, decoded] =
            [request.request_uri, request.uri].map(|uri| uri.unwrap().into_owned());
        (sent, decoded)
    }

    /// Check the keys of OpenTelemetry at any position and in any spelling.
    #[test]
    fn default_keys() {
        for (uri, expected) in [
            ("/a?sig=x", "/a?sig=REDACTED"),
            ("/a?b=1&sig=x&c=2", "/a?b=1&sig=REDACTED&c=2"),
            ("?Signature=x", "?Signature=REDACTED"),
            ("/a?sig=x;y=1&c", "/a?sig=REDACTED&c"),
            ("/a?b=1;sig=x", "/a?b=1;sig=REDACTED"),
            ("/a?si%67=x%26&c", "/a?si%67=REDACTED&c"),
            (
                "/a?X-Amz-Security-Token=ü",
                "/a?X-Amz-Security-Token=REDACTED",
            ),
            ("/a?sig=x&sig=y", "/a?sig=REDACTED&sig=REDACTED"),
            ("/a?sig==x=y", "/a?sig=REDACTED"),
            ("/a?sig=", "/a?sig=REDACTED"),
            ("/a?u=http://b/?sig=x", "/a?u=http://b/?sig=REDACTED"),
            (
                "/a?u=http%3A%2F%2Fb%2F%3fsig%3dx%26y&c",
                "/a?u=http%3A%2F%2Fb%2F%3fsig%3dREDACTED&c",
            ),
            ("/a%3Fsig=x", "/a%3Fsig=REDACTED"),
        ] {
            assert_eq!(kept(&keys(DEFAULT_KEYS), uri).0, expected);
        }
    }

    /// Check that nothing of a value is left in a decoded uri, where an `&` may belong to the
    /// value.
    #[test]
    fn decoded() {
        for (uri, expected) in [
            ("/a?sig=x", "/a?sig=REDACTED"),
            ("/a?b=1&sig=x&y?z;sig=&", "/a?b=1&sig=REDACTED"),
            ("/a%3Fsig=x%26y&z", "/a%3Fsig=REDACTED"),
        ] {
            assert_eq!(kept(&keys(DEFAULT_KEYS), uri).1, expected);
        }
    }

    /// Check that nothing else is removed: other keys, other cases, keys without a value, paths,
    /// and `%` that begins no encoding.
    #[test]
    fn untouched() {
        for uri in [
            "/",
            "/sig=x",
            "/a?",
            "/a?sig",
            "/a?SIG=x",
            "/a?asig=x",
            "/a?sig%=x",
            "/a?%",
            "/a?%2",
            "/a?%zz=sig",
            "/a?b=sig",
            "/ü?ü=%ü",
            "*",
            "",
        ] {
            assert_eq!(
                kept(&keys(DEFAULT_KEYS), uri),
                (uri.to_owned(), uri.to_owned())
            );
        }
    }

    /// Check keys that the user named, no keys, and the removal of the whole query.
    #[test]
    fn options() {
        let uri = "/a?sig=x&token=y";
        for (redaction, uri, expected) in [
            (keys("token,key"), uri, "/a?sig=x&token=REDACTED"),
            (Redaction::Keys(Vec::new()), uri, uri),
            (Redaction::Query, uri, "/a"),
            (Redaction::Query, "/a%3fb", "/a"),
            (Redaction::Query, "/a", "/a"),
        ] {
            let expected = expected.to_owned();
            assert_eq!(kept(&redaction, uri), (expected.clone(), expected));
        }
    }

    /// Check the variables that are a query string, a value of one, or a uri, and headers.
    #[test]
    fn asked() {
        let values = || {
            let all = [
                ("args", "a=1&sig=x"),
                ("arg_sig", "x"),
                ("arg_a", "1"),
                ("request_uri", "/a?sig=x"),
                ("status", "200"),
            ];
            all.map(|(name, value)| (name.into(), value.into())).into()
        };
        let redacted = |redaction: &Redaction| {
            let mut request = Request::default();
            request.place.variables = values();
            request.place.headers = [("referer".into(), "http://a/?sig=x".into())].into();
            redaction.apply(&mut request);
            let place = request.place;
            let values = place.variables.into_iter().chain(place.headers);
            let values = values.map(|(name, value)| format!("{name}: {value}"));
            values.collect::<Vec<_>>()
        };
        assert_eq!(
            redacted(&keys(DEFAULT_KEYS)),
            [
                "arg_a: 1",
                "arg_sig: REDACTED",
                "args: a=1&sig=REDACTED",
                "request_uri: /a?sig=REDACTED",
                "status: 200",
                "referer: http://a/?sig=REDACTED",
            ]
        );
        assert_eq!(
            redacted(&Redaction::Query),
            ["request_uri: /a", "status: 200", "referer: http://a/"]
        );
    }
}
