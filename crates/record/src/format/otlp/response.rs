// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a receiver answers to a batch.

use serde::Deserialize;

/// What a receiver has not taken of a batch that it has taken otherwise.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// How many spans or log records it has refused.
    pub rejected: u64,
    /// Why, or a warning. Empty: there is none.
    pub message: String,
}

/// The answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Option<Partial>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    rejected_spans: Option<Count>,
    rejected_log_records: Option<Count>,
    error_message: Option<String>,
}

/// A number of 64 bits: a text, by the mapping of Protobuf to JSON, or a number, which it allows too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

impl Count {
    fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Text(text) => text.parse().unwrap_or_default(),
        }
    }
}

impl PartialSuccess {
    /// Reads it from the body of the answer. A body that is none says that all was taken.
    pub fn read(body: &[u8]) -> Self {
        let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let counts = [partial.rejected_spans, partial.rejected_log_records];
        let [spans, records] = counts.map(|count| count.map_or(0, Count::number));
        Self {
            rejected: spans.saturating_add(records),
            message: partial.error_message.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PartialSuccess;

    /// Check each form of an answer.
    #[test]
    fn read() {
        for (body, rejected, message) in [
            ("", 0, ""),
            ("{}", 0, ""),
            ("<html>", 0, ""),
            (r#"{"partialSuccess":{}}"#, 0, ""),
            (
                r#"{"partialSuccess":{"rejectedSpans":"5","errorMessage":"x"}}"#,
                5,
                "x",
            ),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":7,"errorMessage":null}}"#,
                7,
                "",
            ),
            (r#"{"partialSuccess":null}"#, 0, ""),
        ] {
            let expected = PartialSuccess {
                rejected,
                message: message.to_owned(),
            };
            assert_eq!(PartialSuccess::read(body.as_bytes()), expected, "{body}");
        }
    }
}
