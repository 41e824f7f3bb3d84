// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts the options that choose what is traced to the settings of the layers below, which do not know the command
//! line.

use ngx_bpf_record::statistics::GroupKey;

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
pub fn settings(choice: &ChoiceArgs, sink: Option<Sink>) -> TraceSettings {
    TraceSettings {
        follow: follow_settings(choice),
        reading: reading_settings(choice),
        filter: text_filter(choice),
        headers: choice.header_values(),
        sink,
        delivery: None,
        duration: choice.duration,
        count: choice.count,
        overhead: None,
        user: choice.user.clone(),
        metrics: None,
        started: None,
        inflight: None,
        verbosity: match (choice.quiet, choice.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        },
        hints: Vec::new(),
    }
}

/// Makes records have what they are grouped by.
pub fn ask_for(settings: &mut TraceSettings, key: &GroupKey) {
    let Some(name) = key.variable() else {
        return;
    };
    let variables = &mut settings.follow.extras.variables;
    if !variables.iter().any(|asked| asked == name) {
        variables.push(name.to_owned());
    }
}

/// Returns the settings that choose what is traced.
fn follow_settings(choice: &ChoiceArgs) -> FollowSettings {
    FollowSettings {
        pids: choice.pids.named(),
        wait: choice.wait,
        sockets: choice.sockets,
        filter: KernelFilter::new(choice.sample, choice.min_duration, &choice.statuses()),
        extras: Extras {
            config_lines: choice.config_lines,
            tcp: choice.tcp,
            listeners: false,
            connections: choice.connections,
            variables: choice.variable.clone(),
            headers: choice.header_names(),
            blocked: choice.blocked,
        },
        redaction: choice.redaction.redaction(),
    }
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
        traced_only: false,
        spans_only: false,
    }
}
