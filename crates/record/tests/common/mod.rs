// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random records, generated from the definition of the record, so that a new key is generated,
//! too.

use ngx_bpf_record::schema::definition;
use ngx_bpf_record::schema::greatest;
use ngx_bpf_record::schema::resolve;
use serde_json::Map;
use serde_json::Value;

/// The characters of texts: those of urls, and those that formats have to escape.
const CHARACTERS: &str = "abcxyz0189/?&=%;.:-_~ \"\\'<>\t\r\n\0\u{8}\u{c}\u{1b}\u{7f}\u{80}\u{9b}é€😀\
    \u{fffd}\u{61c}\u{200e}\u{2028}\u{202e}\u{2066}\u{feff}";

/// A generator of random numbers, which are the same in each run (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// Returns a number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// Returns true in `often` of a hundred calls.
    pub fn percent(&mut self, often: usize) -> bool {
        self.below(100) < often
    }

    /// Returns one of the items.
    pub fn one_of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }
}

/// A generator of records.
pub struct Generator {
    definition: Value,
    pub random: Random,
}

impl Generator {
    /// Creates a generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            definition: definition(),
            random: Random(seed),
        }
    }

    /// Returns a request or, more rarely, another record.
    pub fn record(&mut self) -> Value {
        let name = match self.random.below(40) {
            0 | 1 => "lost",
            2 => "connection",
            _ => "request",
        };
        let schema = self.definition["$defs"][name].clone();
        self.value(&schema)
    }

    /// Returns a value that a schema allows.
    fn value(&mut self, schema: &Value) -> Value {
        let schema = resolve(&self.definition, schema).clone();
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(values) = schema["oneOf"].as_array() {
            return self.random.one_of(values)["const"].clone();
        }
        match schema["type"].as_str() {
            Some("object") if schema["additionalProperties"].is_object() => self.map(&schema),
            Some("object") => self.object(&schema),
            Some("array") => self.array(&schema),
            Some("string") => self.text(&schema).into(),
            Some("integer") => self.integer(&schema).into(),
            _ => self.random.percent(50).into(),
        }
    }

    /// Returns an object with some of its keys.
    fn object(&mut self, schema: &Value) -> Value {
        let required = schema["required"].as_array().unwrap();
        let mut object = Map::new();
        let properties = schema["properties"].as_object().unwrap();
        for (n, (key, property)) in properties.iter().enumerate() {
            let is_required = required.contains(&key.as_str().into());
            let is_needed = n + 1 == properties.len() && object.is_empty();
            if is_required || is_needed || self.random.percent(60) {
                object.insert(key.clone(), self.value(property));
            }
        }
        object.into()
    }

    /// Returns an object with names that a user has chosen, and is not empty.
    fn map(&mut self, schema: &Value) -> Value {
        let value = schema["additionalProperties"].clone();
        let max = schema["maxProperties"].as_u64().unwrap() as usize;
        let len = 1 + self.random.below(max);
        let members = (0..len).map(|n| (format!("name-{n}"), self.value(&value)));
        Value::Object(members.collect())
    }

    /// Returns an array that is not empty.
    fn array(&mut self, schema: &Value) -> Value {
        let items = resolve(&self.definition, &schema["items"]).clone();
        if schema["uniqueItems"] == true {
            let values = items["oneOf"].as_array().unwrap().iter();
            let mut values: Vec<_> = values.map(|value| value["const"].clone()).collect();
            let start = self.random.below(values.len());
            return values.split_off(start).into();
        }
        let max = schema["maxItems"].as_u64().unwrap() as usize;
        let len = if self.random.percent(80) { 1 } else { max };
        (0..len).map(|_| self.value(&items)).collect()
    }

    /// Returns a text, which is mostly short and sometimes of the greatest length.
    fn text(&mut self, schema: &Value) -> String {
        let max = schema["maxLength"].as_u64().unwrap_or_default() as usize;
        let (characters, len) = match schema["pattern"].as_str() {
            Some(pattern) if pattern.contains('T') => {
                return format!(
                    "2026-11-26T18:00:00.{:09}Z",
                    self.random.below(1_000_000_000)
                );
            }
            Some(_) => ("0123456789abcdef", max),
            None if self.random.percent(5) => (CHARACTERS, max),
            None => (CHARACTERS, 1 + self.random.below(max.min(60))),
        };
        let characters: Vec<char> = characters.chars().collect();
        (0..len).map(|_| *self.random.one_of(&characters)).collect()
    }

    /// Returns a number: the least, the greatest, or any.
    fn integer(&mut self, schema: &Value) -> u64 {
        let max = greatest(schema);
        let min = schema["minimum"].as_u64().unwrap_or_default();
        match self.random.below(10) {
            0 => min,
            1 => max,
            n => (self.random.number() >> (n * 6)).clamp(min, max),
        }
    }
}
