// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serializes a record as JSON. serde_json's own serializer looks at every byte of every key, and writes a member in
//! five pieces, so that a record takes about twice the time (`cargo bench -p ngx-bpf-record --bench formats`).

use serde::Serialize;
use serde::ser::Error as _;
use serde::ser::Impossible;
use serde::ser::SerializeMap;
use serde::ser::SerializeSeq;
use serde::ser::SerializeStruct;
use serde::ser::SerializeTuple;
use serde::ser::Serializer;
use serde_json::Error;

use super::string::write_string;
use super::write_number;
use crate::format::refused::refuse_forms;
use crate::format::refused::refused;

/// Appends values to a line.
pub(super) struct Line<'l>(pub &'l mut Vec<u8>);

impl Line<'_> {
    /// Begins a member or an item. The last byte is `{` or `[` before the first one only: no value ends with these.
    fn separate(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    /// Adds a member.
    fn member<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        self.separate();
        write_string(self.0, key);
        self.0.push(b':');
        value.serialize(self)
    }
}

impl SerializeSeq for &mut Line<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.separate();
        item.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        self.0.push(b']');
        Ok(())
    }
}

impl SerializeTuple for &mut Line<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        SerializeSeq::serialize_element(self, item)
    }

    fn end(self) -> Result<(), Error> {
        SerializeSeq::end(self)
    }
}

impl SerializeStruct for &mut Line<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.member(key, value)
    }

    fn end(self) -> Result<(), Error> {
        self.0.push(b'}');
        Ok(())
    }
}

impl SerializeMap for &mut Line<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.separate();
        let start = self.0.len();
        key.serialize(&mut **self)?;
        match self.0.get(start) {
            Some(b'"') => Ok(()),
            _ => Err(Error::custom("a key is not a string")),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.0.push(b':');
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        self.0.push(b'}');
        Ok(())
    }
}

/// Defines the methods for numbers of these types.
macro_rules! numbers {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            write_number(self.0, value);
            Ok(())
        })+
    };
}

impl Serializer for &mut Line<'_> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), Error>;

    numbers! {
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.0, &value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.0, &value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_string(self.0, value);
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(name)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.0.push(b'{');
        self.member(name, value)?;
        self.0.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        self.0.push(b'[');
        Ok(self)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self, Error> {
        self.serialize_seq(Some(len))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Error> {
        self.0.push(b'{');
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self, Error> {
        self.serialize_map(Some(len))
    }

    refuse_forms!();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::Line;

    /// Returns the JSON of a value.
    fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
        let mut line = Vec::new();
        value.serialize(&mut Line(&mut line))?;
        Ok(String::from_utf8(line).unwrap())
    }

    /// One of each form of enum that has a place in JSON here.
    #[derive(Serialize)]
    enum Form {
        Unit,
        Newtype(Option<u8>),
        Pair(u8, u8),
    }

    #[derive(Serialize)]
    struct Inner<T> {
        value: T,
    }

    #[derive(Serialize)]
    struct Outer<T> {
        none: Option<u8>,
        #[serde(flatten)]
        inner: Inner<T>,
    }

    /// Check every form of value against serde_json.
    #[test]
    fn forms() {
        fn check<T: Serialize>(value: T) {
            assert_eq!(
                json(&value).unwrap(),
                serde_json::to_string(&value).unwrap()
            );
            let value = Outer {
                none: None,
                inner: Inner {
                    value: [&value, &value],
                },
            };
            assert_eq!(
                json(&value).unwrap(),
                serde_json::to_string(&value).unwrap()
            );
        }
        check((i8::MIN, i16::MIN, i32::MIN, i64::MIN));
        check((u8::MAX, u16::MAX, u32::MAX, u64::MAX));
        check((0.1_f32, 1e300, f64::NAN, -0.0, true, false));
        check(('"', 'é', "a\\\"\u{8}\t\n\u{c}\r\u{1}é漢", ""));
        check((Form::Unit, Form::Newtype(None), Form::Newtype(Some(1)), ()));
        check(Vec::<u8>::new());
        check(vec![Vec::<u8>::new(), vec![1]]);
        check(BTreeMap::from([("", 1), ("{", 2), ("[", 3), ("\"", 4)]));
        check(BTreeMap::<&str, u8>::new());
        check(serde_json::json!({"a": [{}, [], {"b": null}], "c": 1.5}));
        /* Strings around the numbers of bytes that are looked at in one step. */
        for length in 0..50 {
            for at in 0..length {
                let mut text = vec![b'a'; length];
                check(String::from_utf8(text.clone()).unwrap());
                for byte in [b'"', b'\\', 0, 0x1f, b' ', b'~'] {
                    text[at] = byte;
                    check(String::from_utf8(text.clone()).unwrap());
                }
            }
        }
    }

    /// Check that a value without a form here is an error.
    #[test]
    fn refused() {
        assert!(json(&BTreeMap::from([(1, 2)])).is_err());
        assert!(json(&Form::Pair(1, 2)).is_err());
    }
}
