// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf` without a command: traces requests. It converts the options to the settings of the
//! layers below, which do not know the command line.

use anyhow::Result;

use crate::cli::hint::hints;
use crate::cli::trace::MetricNamesArg;
use crate::cli::trace::TraceArgs;
use crate::cli::value::Interval;
use crate::commands::choice;
use crate::host::terminal;
use crate::metrics::MetricNames;
use crate::metrics::MetricsSettings;
use crate::output;
use crate::pipeline;
use crate::pipeline::TraceSettings;
use crate::pipeline::delivery::DeliverySettings;
use crate::pipeline::overhead::ReportTimes;
use crate::pipeline::sink::LineOutput;
use crate::pipeline::sink::Sink;

/// Traces until the end. Returns false when the output was still failing at the end, which was
/// reported.
pub fn trace(options: &TraceArgs) -> Result<bool> {
    let hints = hints(options, output::is_stdout_pipe());
    pipeline::trace(settings(options, hints, terminal::is_stdout()))
}

/// Converts options to settings. `is_terminal` says whether stdout is one.
fn settings(options: &TraceArgs, hints: Vec<String>, is_terminal: bool) -> TraceSettings {
    let format = options.format(is_terminal);
    let sink = options.writes_lines().then(|| {
        Sink::Lines(LineOutput {
            format,
            service: options.service.clone(),
            output: options.output.clone(),
            line_bytes_max: options.max_line.0,
        })
    });
    let mut settings = choice::settings(&options.choice, sink);
    settings.overhead = options.self_stats.map(|Interval(time)| match time {
        Some(time) => ReportTimes::Every(time),
        None => ReportTimes::AtEnd,
    });
    settings.metrics = options.metrics.map(|address| MetricsSettings {
        address: address.0,
        names: match options.metrics_names {
            MetricNamesArg::Nginx => MetricNames::Nginx,
            MetricNamesArg::Otel => MetricNames::Otel,
        },
        routes: options.route.clone(),
        stats: options.stats,
    });
    settings.filter.traced_only = options.traced_only;
    settings.filter.spans_only = options.writes_only_spans();
    settings.delivery = options.otlp.clone().map(|endpoint| DeliverySettings {
        endpoint,
        service: options.service.clone(),
    });
    settings.follow.extras.listeners = options.metrics.is_some();
    settings.reading.counters = options.stats;
    settings.hints = hints;
    settings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;
    use ngx_bpf_record::Redaction;

    use super::settings;
    use crate::attach::object::Extras;
    use crate::attach::object::KernelFilter;
    use crate::cli::Cli;
    use crate::host::container::PodName;
    use crate::host::stderr::Verbosity;
    use crate::output::OutputFormat;
    use crate::pipeline::TraceSettings;
    use crate::pipeline::overhead::ReportTimes;
    use crate::pipeline::sink::LineOutput;
    use crate::pipeline::sink::Sink;

    /// Returns the settings of a command line.
    fn parsed(args: &[&str]) -> TraceSettings {
        let args = ["ngx-bpf"].iter().chain(args);
        let cli = Cli::try_parse_from(args).unwrap();
        settings(&cli.trace, Vec::new(), false)
    }

    /// Returns where lines go.
    fn lines(settings: &TraceSettings) -> &LineOutput {
        match &settings.sink {
            Some(Sink::Lines(lines)) => lines,
            Some(Sink::View(_)) | None => panic!("there are no lines"),
        }
    }

    /// Check that without options every request passes, and that only records are written.
    #[test]
    fn defaults() {
        let settings = parsed(&[]);
        assert_eq!(settings.follow.filter, KernelFilter::new(None, None, &[]));
        assert!(settings.follow.pids.is_empty() && !settings.follow.wait);
        assert_eq!(settings.follow.extras, Extras::default());
        assert!(matches!(&settings.follow.redaction, Redaction::Keys(keys) if !keys.is_empty()));
        assert_eq!(lines(&settings).format, OutputFormat::Text);
        assert_eq!(lines(&settings).line_bytes_max, Some(4095));
        assert_eq!(settings.verbosity, Verbosity::Normal);
        assert!(settings.metrics.is_none() && settings.overhead.is_none());
        assert!(settings.user.is_none());
        assert!(settings.count.is_none() && settings.duration.is_none());
    }

    /// Check that each option becomes the setting that belongs to it.
    #[test]
    fn options() {
        let settings = parsed(&["-p=7,8", "--format=otel", "-n3", "-d2s"]);
        assert_eq!(settings.follow.pids, [7, 8]);
        assert_eq!(lines(&settings).format, OutputFormat::Otel);
        assert_eq!(settings.count, Some(3));
        assert_eq!(settings.duration, Some(Duration::from_secs(2)));
        let settings = parsed(&["--sample=10", "--min-duration=1ms", "--status=404,5xx"]);
        let filter = KernelFilter::new(
            Some(10),
            Some(Duration::from_millis(1)),
            &[404..=404, 500..=599],
        );
        assert_eq!(settings.follow.filter, filter);
        let settings = parsed(&["--method=get", "--host=a:80", "--uri=/x", "--failed"]);
        assert_eq!(settings.filter.methods, ["GET"]);
        assert_eq!(settings.filter.host.as_deref(), Some("a"));
        assert_eq!(settings.filter.uri_prefix.as_deref(), Some("/x"));
        assert!(settings.filter.failed_only);
        let id = "0123456789ab";
        let settings = parsed(&["--container", id, "--pod=web", "--pod=shop/web"]);
        let containers = settings.reading.containers;
        assert_eq!(containers.ids, [id]);
        let namespaces = [None, Some("shop".to_owned())];
        let pods = namespaces.map(|namespace| PodName {
            namespace,
            name: "web".to_owned(),
        });
        assert_eq!(containers.pods, pods);
        let settings = parsed(&[
            "--config-lines",
            "--tcp",
            "--connections",
            "--variable=$Request_ID",
            "--header=X-One",
            "--header=x-one=a=b",
        ]);
        assert!(settings.follow.extras.config_lines && settings.follow.extras.tcp);
        assert!(settings.follow.extras.connections);
        assert_eq!(settings.follow.extras.variables, ["request_id"]);
        assert_eq!(settings.follow.extras.headers, ["x-one"]);
        assert_eq!(settings.headers, [("x-one".to_owned(), "a=b".to_owned())]);
        let settings = parsed(&["--no-query", "--self-stats=1s", "-q", "--max-line=none"]);
        assert!(matches!(settings.follow.redaction, Redaction::Query));
        let every = ReportTimes::Every(Duration::from_secs(1));
        assert_eq!(settings.overhead, Some(every));
        assert_eq!(settings.verbosity, Verbosity::Quiet);
        assert_eq!(lines(&settings).line_bytes_max, None);
        let settings = parsed(&[
            "--metrics=9913",
            "--route=a=/x*",
            "--self-stats",
            "-v",
            "--user=web",
        ]);
        assert_eq!(settings.user.as_deref(), Some("web"));
        let metrics = settings.metrics.unwrap();
        assert_eq!((metrics.address.port(), metrics.routes.len()), (9913, 1));
        assert_eq!(settings.overhead, Some(ReportTimes::AtEnd));
        assert_eq!(settings.verbosity, Verbosity::Verbose);
    }

    /// Check that with a receiver there are lines only where they are asked for, and that only requests that become spans
    /// pass where there is nothing else.
    #[test]
    fn receivers() {
        let url = "--otlp=http://127.0.0.1:4318";
        let settings = parsed(&[url, "--service=shop", "--connections"]);
        let delivery = settings.delivery.unwrap();
        assert_eq!(delivery.endpoint.to_string(), "http://127.0.0.1:4318");
        assert_eq!(delivery.service.as_deref(), Some("shop"));
        assert!(settings.sink.is_none() && !settings.filter.spans_only);
        for option in ["--json", "--format=text", "--output=/dev/null"] {
            assert!(parsed(&[url, option]).sink.is_some(), "{option}");
        }
        let spans_only = |args: &[&str]| parsed(args).filter.spans_only;
        let of_traces = "--otlp=http://127.0.0.1:4318/v1/traces";
        assert!(spans_only(&["--format=otlp"]) && spans_only(&["--format=otlp", url]));
        assert!(spans_only(&[of_traces]) && !spans_only(&[of_traces, "--json"]));
    }

    /// Check that the metrics have listening sockets.
    #[test]
    fn listeners() {
        assert!(parsed(&["--metrics=9913"]).follow.extras.listeners);
    }

    /// Check the time of `--blocked`, with its default.
    #[test]
    fn blocked() {
        let time = |args: &[&str]| parsed(args).follow.extras.blocked;
        assert_eq!(time(&["--blocked"]), Some(Duration::from_millis(100)));
        assert_eq!(time(&["--blocked=20ms"]), Some(Duration::from_millis(20)));
        assert_eq!(time(&[]), None);
    }
}
