// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hints about options that are valid, but may not do what the user meant.

use super::TraceArgs;
use crate::output::OutputFormat;

/// The highest status that HTTP defines. nginx sends others, up to 999, as well: with `return 699`,
/// or from an upstream.
const STATUS_MAX: u32 = 599;

/// Returns the hints that are printed when tracing has begun. `is_piped` says whether stdout is a
/// pipe.
pub fn hints(options: &TraceArgs, is_piped: bool) -> Vec<String> {
    let mut hints = Vec::new();
    if is_piped && options.output.is_none() && options.is_format_open() && options.writes_lines() {
        hints.push(
            "stdout is a pipe and gets lines of text: --json writes JSON, and --format text asks for \
             text"
                .to_owned(),
        );
    }
    if let Some(uri) = &options.choice.uri {
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
    if options
        .choice
        .status
        .iter()
        .any(|range| range.first > STATUS_MAX)
    {
        hints.push(format!(
            "HTTP has no status above {STATUS_MAX}: only a \"return\" or an unusual upstream sends one"
        ));
    }
    hints.extend(asked_in_text(options));
    hints.extend(contradicting_headers(options));
    hints
}

/// Returns a hint when keys were asked for that lines of text do not have.
fn asked_in_text(options: &TraceArgs) -> Option<String> {
    let adds_headers = options
        .choice
        .header
        .iter()
        .any(|header| header.value.is_none());
    let asked = [
        ("--config-lines", options.choice.config_lines),
        ("--tcp", options.choice.tcp),
        ("--variable", !options.choice.variable.is_empty()),
        ("--header", adds_headers),
    ];
    let (option, _) = asked.into_iter().find(|(_, is_given)| *is_given)?;
    let is_text = matches!(
        options.format(false),
        OutputFormat::Text | OutputFormat::Pretty
    );
    (is_text && options.writes_lines()).then(|| {
        format!("{option} adds nothing to lines of text: --json and --format otel have its keys")
    })
}

/// Returns a hint when a header must have two values at once.
fn contradicting_headers(options: &TraceArgs) -> Option<String> {
    let values = options
        .choice
        .header
        .iter()
        .filter_map(|header| Some((&header.name, header.value.as_ref()?)));
    let named: Vec<_> = values.collect();
    let contradicts = |(name, value): &(&String, &String)| {
        named
            .iter()
            .any(|(other, wanted)| other == name && wanted != value)
    };
    let (name, _) = named.iter().find(|header| contradicts(header))?;
    Some(format!(
        "--header {name} has several values: all filters must hold, so that no request passes"
    ))
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
            (&["--variable", "a"], &["--variable adds nothing"]),
            (&["--config-lines", "--json"], &[]),
            (&["--header", "a", "--format=otel"], &[]),
            (&["--header", "a=b"], &[]),
            (&["--header", "a"], &["--header adds nothing"]),
            (&["--header=a=b", "--header=a=c"], &["has several values"]),
            (&["--header=a=b", "--header=A=b", "--header=c=d"], &[]),
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
