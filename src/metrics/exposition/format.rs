// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats of a scrape, and which of them a client asks for.

/// A format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's protobuf, the only one with native histograms.
    Protobuf,
    /// The text of OpenMetrics 1.0.
    OpenMetrics,
    /// The text of Prometheus before OpenMetrics, which has no exemplars.
    Text,
}

impl Format {
    /// Returns the format that the values of `Accept` prefer; of several with one weight the first of this enum.
    /// OpenMetrics when they accept anything, or nothing that there is.
    pub fn accepted(accept: &[&str]) -> Self {
        let mut best = (0, Self::OpenMetrics);
        for range in accept.iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let of = |key: &str| {
                let mut found = parameters.iter().filter(|(name, _)| name.trim() == key);
                found.next().map(|(_, value)| value.trim())
            };
            let weight = match of("q").map_or(Ok(1.0), str::parse::<f64>) {
                Ok(weight) => (weight * 1000.0) as u32,
                Err(_) => continue,
            };
            let is_delimited = of("proto") == Some("io.prometheus.client.MetricFamily")
                && of("encoding") == Some("delimited");
            let format = match name.as_str() {
                "application/vnd.google.protobuf" if is_delimited => Self::Protobuf,
                "application/openmetrics-text" | "application/*" | "*/*" => Self::OpenMetrics,
                "text/plain" | "text/*" => Self::Text,
                _ => continue,
            };
            if weight > best.0 || (weight == best.0 && weight > 0 && format.rank() < best.1.rank())
            {
                best = (weight, format);
            }
        }
        best.1
    }

    /// Returns the place in the order of preference.
    fn rank(self) -> u8 {
        self as u8
    }

    /// Returns the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    /// Check what scrapers and people send.
    #[test]
    fn accepted() {
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let texts = "application/openmetrics-text;version=1.0.0,\
                     application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (vec![], Format::OpenMetrics),
            (vec!["*/*"], Format::OpenMetrics),
            (vec!["image/png"], Format::OpenMetrics),
            (vec![texts], Format::OpenMetrics),
            (vec![texts, protobuf], Format::Protobuf),
            (vec![&format!("{protobuf},{texts}")], Format::Protobuf),
            (
                vec![&format!("{protobuf};q=0.3,{texts}")],
                Format::OpenMetrics,
            ),
            (
                vec![&protobuf.replace("delimited", "text")],
                Format::OpenMetrics,
            ),
            (vec![&format!("{protobuf};q=x")], Format::OpenMetrics),
            (vec!["text/plain;version=0.0.4;q=1,*/*;q=0.1"], Format::Text),
            (
                vec!["text/html,application/xml;q=0.9,*/*;q=0.8"],
                Format::OpenMetrics,
            ),
            (vec!["Text/Plain ; q = 0.5"], Format::Text),
            (vec!["text/plain;q=0"], Format::OpenMetrics),
        ] {
            let accept: Vec<&str> = accept.iter().map(|value| &**value).collect();
            assert_eq!(Format::accepted(&accept), expected, "{accept:?}");
        }
    }
}
