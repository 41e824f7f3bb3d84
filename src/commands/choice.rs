// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts the options that choose what is traced to the settings of the layers below, which do not know the command
//! line.

use crate::attach::object::Extras;
use crate::attach::object::KernelFilter;
use crate::cli::choice::ChoiceArgs;
use crate::commands::reading::layout_options;
use crate::follow::containers::ContainerFilter;
use crate::follow::settings::FollowSettings;
use crate::follow::settings::ReadingSettings;
use crate::host::stderr::Verbosity;
use crate::pipeline::TraceSettings;
use crate::pipeline::filter::TextFilter;
use crate::pipeline::sink::Sink;

/// Converts these options. Metrics and the overhead are not asked for.
pub fn settings(choice: &ChoiceArgs, sink: Sink) -> TraceSettings {
    TraceSettings {
        follow: follow_settings(choice),
        reading: reading_settings(choice),
        filter: text_filter(choice),
        headers: header_values(choice),
        sink,
        duration: choice.duration,
        count: choice.count,
        overhead: None,
        user: choice.user.clone(),
        metrics: None,
        started: None,
        verbosity: match (choice.quiet, choice.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        },
        hints: Vec::new(),
    }
}

/// Returns the settings that choose what is traced.
fn follow_settings(choice: &ChoiceArgs) -> FollowSettings {
    let statuses = choice.status.iter();
    let statuses: Vec<_> = statuses.map(|range| range.first..=range.last).collect();
    FollowSettings {
        pids: choice.pids.named(),
        wait: choice.wait,
        sockets: choice.sockets,
        filter: KernelFilter::new(choice.sample, choice.min_duration, &statuses),
        extras: Extras {
            config_lines: choice.config_lines,
            tcp: choice.tcp,
            listeners: false,
            connections: choice.connections,
            variables: choice.variable.clone(),
            headers: header_names(choice),
            blocked: choice.blocked,
        },
        redaction: choice.redaction.redaction(),
    }
}

/// Returns the names of the headers that the user named, each once.
fn header_names(choice: &ChoiceArgs) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for header in &choice.header {
        if !names.contains(&header.name) {
            names.push(header.name.clone());
        }
    }
    names
}

/// Returns the headers that must have a value.
fn header_values(choice: &ChoiceArgs) -> Vec<(String, String)> {
    let headers = choice.header.iter();
    headers
        .filter_map(|header| Some((header.name.clone(), header.value.clone()?)))
        .collect()
}

/// Returns what the user named for reading processes and their files.
fn reading_settings(choice: &ChoiceArgs) -> ReadingSettings {
    ReadingSettings {
        layout: layout_options(&choice.layout),
        containers: ContainerFilter {
            ids: choice.container.clone(),
            pods: choice.pod.clone(),
        },
        counters: false,
    }
}

/// Returns the filters on texts.
fn text_filter(choice: &ChoiceArgs) -> TextFilter {
    TextFilter {
        methods: choice.method.clone(),
        uri_prefix: choice.uri.clone(),
        host: choice.host.clone(),
        failed_only: choice.failed,
    }
}
