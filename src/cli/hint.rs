// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hints about options that are valid, but may not do what the user meant.

use super::TraceArgs;

/// The highest status that HTTP defines. nginx sends others, up to 999, as well: with `return 699`,
/// or from an upstream.
const STATUS_MAX: u32 = 599;

/// Returns the hints that are printed when tracing has begun. `is_piped` says whether stdout is a
/// pipe.
pub fn hints(options: &TraceArgs, is_piped: bool) -> Vec<String> {
    let mut hints = Vec::new();
    if is_piped && options.output.is_none() && options.is_format_open() {
        hints.push(
            "stdout is a pipe and gets lines of text: --json writes JSON, and --format text asks for \
             text"
                .to_owned(),
        );
    }
    if let Some(uri) = &options.uri {
        if uri.contains('*') {
            hints.push(format!(
                "--uri takes a prefix, not a pattern: {uri:?} matches only URIs that contain this \"*\""
            ));
        }
        if !uri.is_empty() && !uri.starts_with('/') {
            hints.push(format!(
                "--uri {uri:?} does not begin with \"/\", as the URIs of requests do"
            ));
        }
    }
    if options.status.iter().any(|range| range.first > STATUS_MAX) {
        hints.push(format!(
            "HTTP has no status above {STATUS_MAX}: only a \"return\" or an unusual upstream sends one"
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::hints;
    use crate::cli::Cli;

    /// Check that text in a pipe has a hint, unless the user asked for text.
    #[test]
    fn piped() {
        for (args, expected) in [
            (&[][..], 1),
            (&["--format", "text"], 0),
            (&["--json"], 0),
            (&["--output", "x"], 0),
        ] {
            let cli = Cli::try_parse_from(["ngx-bpf"].iter().chain(args)).unwrap();
            assert_eq!(hints(&cli.trace, true).len(), expected, "{args:?}");
            assert!(hints(&cli.trace, false).is_empty());
        }
    }

    /// Check options that have a hint, and options that have none.
    #[test]
    fn each() {
        for (args, expected) in [
            (&["--uri", "/shop"][..], &[][..]),
            (&["--uri", ""], &[]),
            (&["--uri", "/x.*"], &["a prefix, not a pattern"]),
            (&["--uri", "shop"], &["does not begin with \"/\""]),
            (&["--status", "4xx,500-599"], &[]),
            (&["--status", "404,6xx"], &["above 599"]),
        ] {
            let cli = Cli::try_parse_from(["ngx-bpf"].iter().chain(args)).unwrap();
            let found = hints(&cli.trace, false);
            assert_eq!(found.len(), expected.len(), "{args:?}: {found:?}");
            for (hint, part) in found.iter().zip(expected) {
                assert!(hint.contains(part), "{hint}");
            }
        }
    }
}
