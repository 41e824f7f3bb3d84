// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names for groups of paths, since there are too many paths to count each of them.

use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use super::labels::OTHER;

/// A route: `--route NAME=PATTERN`.
#[derive(Clone, Debug)]
pub struct Route {
    /// The value of the label `route`.
    name: String,
    /// A path, in which `*` stands for anything.
    pattern: String,
}

impl FromStr for Route {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, pattern) = text.split_once('=').context("not NAME=PATTERN")?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
        ensure!(
            !name.is_empty() && name.bytes().all(is_plain),
            "\"{name}\" is not a name: letters, digits, _ - . : /"
        );
        ensure!(
            pattern.starts_with(['/', '*']),
            "\"{pattern}\" must begin with / or *"
        );
        Ok(Self {
            name: name.to_owned(),
            pattern: pattern.to_owned(),
        })
    }
}

impl Route {
    /// Returns the name of the first route that matches the path that the client asked for, or `other`;
    /// `None` when there are no routes.
    pub fn label(routes: &[Self], request_uri: Option<&str>) -> Option<String> {
        let path = request_uri.map(|uri| uri.split_once('?').map_or(uri, |(path, _)| path));
        let matches = |route: &&Self| path.is_some_and(|path| matches(&route.pattern, path));
        let found = routes
            .iter()
            .find(matches)
            .map_or(OTHER, |route| &route.name);
        (!routes.is_empty()).then(|| found.to_owned())
    }
}

/// Returns whether a pattern matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some((_, after)) = text.split_once(part) else {
            return false;
        };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Route;
    use super::matches;

    /// Check patterns with and without stars.
    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/api/*", "/api/", true),
            ("/api/*", "/api/a/b", true),
            ("/api/*", "/ap", false),
            ("/a/*/b", "/a/x/b", true),
            ("/a/*/b", "/a/b", false),
            ("*.png", "/x.png", true),
            ("*.png", "/x.png/y", false),
            ("/*a*a*", "/aa", true),
            ("/*a*a*", "/a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// Check that the first route that matches counts, and that texts that are not routes are
    /// refused.
    #[test]
    fn first() {
        let route = |text: &str| text.parse::<Route>();
        let routes = [route("a=/x*").unwrap(), route("b=/*").unwrap()];
        let of = |uri| Route::label(&routes, uri).unwrap();
        assert_eq!((of(Some("/xy")), of(Some("/y"))), ("a".into(), "b".into()));
        assert_eq!(of(Some("/z?/x")), "b");
        assert_eq!(of(Some("?/x")), "other");
        assert_eq!(of(None), "other");
        assert_eq!(Route::label(&[], Some("/")), None);
        for text in ["", "a", "=/", "a b=/", "a\"=/", "a=", "a=x"] {
            assert!(route(text).is_err(), "{text}");
        }
    }
}
