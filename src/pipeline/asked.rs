// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of a record that options ask for: variables and headers. BPF numbers them in the order of the
//! options; here they get their names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::values::Cut;

use crate::attach::object::Extras;
use crate::decode::texts::Texts;
use crate::decode::texts::WireText;

/// The names of what options ask for.
#[derive(Clone, Debug, Default)]
pub struct AskedNames {
    variables: Vec<String>,
    headers: Vec<String>,
    /// The headers that a request must have with a certain value, by their numbers.
    wanted: Vec<(usize, String)>,
}

impl AskedNames {
    /// Creates the names of what BPF reads. `wanted` are the values that headers must have, by their names.
    pub fn new(extras: &Extras, wanted: &[(String, String)]) -> Self {
        let number = |name: &String| extras.headers.iter().position(|header| header == name);
        let wanted = wanted.iter();
        Self {
            variables: extras.variables.clone(),
            headers: extras.headers.clone(),
            wanted: wanted
                .filter_map(|(name, value)| Some((number(name)?, value.clone())))
                .collect(),
        }
    }

    /// Returns whether each header that must have a certain value has it.
    pub fn lets_through(&self, texts: &Texts<'_>) -> bool {
        let has = |(number, value): &(usize, String)| {
            let text = texts.headers.get(*number);
            text.is_some_and(|text| text.bytes == value.as_bytes() && !text.is_cut)
        };
        self.wanted.iter().all(has)
    }

    /// Adds the values to a request.
    pub fn add<'a>(&'a self, request: &mut Request<'a>, texts: &Texts<'a>) {
        let cuts = &mut request.truncated;
        request.place.variables = named(&self.variables, &texts.variables, Cut::Variables, cuts);
        request.place.headers = named(&self.headers, &texts.headers, Cut::Headers, cuts);
    }
}

/// Returns the values that exist by their names, and notes if one is cut.
fn named<'a>(
    names: &'a [String],
    values: &[WireText<'a>],
    cut: Cut,
    cuts: &mut Vec<Cut>,
) -> BTreeMap<Cow<'a, str>, Cow<'a, str>> {
    let mut found = BTreeMap::new();
    for (name, value) in names.iter().zip(values) {
        let Some(text) = value.lossy() else {
            continue;
        };
        found.insert(Cow::Borrowed(name.as_str()), text);
        if value.is_cut && !cuts.contains(&cut) {
            cuts.push(cut);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Request;
    use ngx_bpf_record::values::Cut;

    use super::AskedNames;
    use crate::attach::object::Extras;
    use crate::decode::examples::text;
    use crate::decode::texts::Texts;
    use crate::decode::texts::WireText;

    /// Check names, values that do not exist, values that are cut, and the filter.
    #[test]
    fn values() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let extras = Extras {
            variables: names(&["a", "b"]),
            headers: names(&["x-one", "x-two"]),
            ..Default::default()
        };
        let wanted =
            |value: &str| AskedNames::new(&extras, &[("x-two".to_owned(), value.to_owned())]);
        let mut texts = Texts::default();
        texts.variables[1] = text("value");
        texts.headers[1] = text("two");
        assert!(wanted("two").lets_through(&texts) && !wanted("tw").lets_through(&texts));
        texts.headers[1] = WireText {
            is_cut: true,
            ..text("two")
        };
        let asked = wanted("two");
        assert!(!asked.lets_through(&texts));
        let mut request = Request::default();
        asked.add(&mut request, &texts);
        let json = serde_json::to_value(&request.place).unwrap();
        assert_eq!(json["variables"], serde_json::json!({"b": "value"}));
        assert_eq!(json["headers"], serde_json::json!({"x-two": "two"}));
        assert_eq!(request.truncated, [Cut::Headers]);
    }
}
