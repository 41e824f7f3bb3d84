// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts a record to one flat list of keys and values. The key of a value within objects or
//! arrays of objects is its path, with dots. An array of plain values is one value.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde::ser::Error as _;
use serde::ser::Impossible;
use serde::ser::SerializeMap;
use serde::ser::SerializeSeq;
use serde::ser::SerializeStruct;
use serde::ser::Serializer;
use serde_json::Error;

use super::json::write_value;
use super::refused::refuse_forms;
use super::refused::refused;

/// Calls `leaf` with the path and the JSON of each value of `object`, in the order of its members.
///
/// Fails when a value has a form that records do not have: a tuple, bytes, an enum with data.
pub fn flatten(object: &impl Serialize, leaf: &mut dyn FnMut(&str, &[u8])) -> io::Result<()> {
    flatten_some(object, |_| true, leaf)
}

/// Does the same with those members of `object` whose names are wanted.
pub fn flatten_some(
    object: &impl Serialize,
    is_wanted: fn(&str) -> bool,
    leaf: &mut dyn FnMut(&str, &[u8]),
) -> io::Result<()> {
    let mut flat = Flat {
        is_wanted,
        path: String::new(),
        value: Vec::new(),
        is_item: false,
        is_name: false,
        leaf,
    };
    object.serialize(&mut flat).map_err(io::Error::from)
}

/// The state of the walk through a record.
struct Flat<'f> {
    /// Returns whether a member of the record itself is wanted, by its name.
    is_wanted: fn(&str) -> bool,
    /// The path of the current value: the names of the members that contain it, with dots.
    path: String,
    /// The JSON of the current value, or the beginning of that of an array of plain values.
    value: Vec<u8>,
    /// True when the value is an item of an array.
    is_item: bool,
    /// True when the value is the name of a member.
    is_name: bool,
    leaf: &'f mut dyn FnMut(&str, &[u8]),
}

impl Flat<'_> {
    /// Adds a plain value.
    fn plain<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        if self.is_name {
            return refused();
        }
        if self.is_item {
            let separator = if self.value.is_empty() { b'[' } else { b',' };
            self.value.push(separator);
            return write_value(&mut self.value, value).map_err(Error::custom);
        }
        write_value(&mut self.value, value).map_err(Error::custom)?;
        self.emit();
        Ok(())
    }

    /// Passes the value to `leaf`.
    fn emit(&mut self) {
        (self.leaf)(&self.path, &self.value);
        self.value.clear();
    }

    /// Begins the path of a member or of an item, and returns the length of the path before it.
    fn begin(&mut self) -> usize {
        let len = self.path.len();
        if len != 0 {
            self.path.push('.');
        }
        len
    }

    /// Adds a value whose path is complete, and then cuts the path to `len` bytes.
    fn at_path<T: Serialize + ?Sized>(
        &mut self,
        len: usize,
        is_item: bool,
        value: &T,
    ) -> Result<(), Error> {
        let outer = std::mem::replace(&mut self.is_item, is_item);
        let result = value.serialize(&mut *self);
        self.is_item = outer;
        self.path.truncate(len);
        result
    }
}

/// An array in progress, and the index of its next item.
struct Items<'a, 'f>(&'a mut Flat<'f>, usize);

impl SerializeSeq for Items<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        let number = self.1;
        self.1 += 1;
        let len = self.0.begin();
        write!(self.0.path, "{number}").map_err(Error::custom)?;
        self.0.at_path(len, true, item)
    }

    fn end(self) -> Result<(), Error> {
        /* The value is empty when the items were objects, or when there was none. */
        if !self.0.value.is_empty() {
            self.0.value.push(b']');
            self.0.emit();
        }
        Ok(())
    }
}

impl SerializeStruct for &mut Flat<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if self.path.is_empty() && !(self.is_wanted)(key) {
            return Ok(());
        }
        let len = self.begin();
        self.path.push_str(key);
        self.at_path(len, false, value)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// A struct that contains the members of another one is serialized as a map.
impl SerializeMap for &mut Flat<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        let len = self.begin();
        self.is_name = true;
        key.serialize(&mut **self)?;
        self.is_name = false;
        if len == 0 && !(self.is_wanted)(&self.path) {
            self.path.clear();
            return Ok(());
        }
        self.at_path(len, false, value)
    }

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        refused()
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Error> {
        refused()
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Defines the methods for plain values of these types.
macro_rules! plain {
    ($($method:ident: $type:ty,)+) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.plain(&value)
        })+
    };
}

impl<'a, 'f> Serializer for &'a mut Flat<'f> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a, 'f>;
    type SerializeStruct = Self;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Self;
    type SerializeStructVariant = Impossible<(), Error>;

    plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if self.is_name {
            self.path.push_str(value);
            return Ok(());
        }
        self.plain(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        self.plain(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a, 'f>, Error> {
        Ok(Items(self, 0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        refused()
    }

    fn serialize_unit(self) -> Result<(), Error> {
        refused()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        refused()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        refused()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        refused()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    refuse_forms!();
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::flatten;

    /// An object with a value of each form that records have.
    #[derive(Serialize)]
    struct Object {
        number: u64,
        texts: Vec<&'static str>,
        none: Vec<u8>,
        inner: Inner,
        items: Vec<Inner>,
        #[serde(flatten)]
        members: Members,
    }

    #[derive(Serialize)]
    struct Members {
        member: u8,
    }

    #[derive(Serialize)]
    struct Inner {
        is_set: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'static str>,
    }

    /// Check the paths and the values of each form, and that other forms are refused.
    #[test]
    fn forms() {
        let inner = |text| Inner { is_set: true, text };
        let object = Object {
            number: u64::MAX,
            texts: vec!["a", "\u{202e}"],
            none: Vec::new(),
            inner: inner(Some("b")),
            items: vec![inner(None), inner(Some("c"))],
            members: Members { member: 7 },
        };
        let mut leaves = Vec::new();
        flatten(&object, &mut |path, value| {
            leaves.push(format!("{path}={}", std::str::from_utf8(value).unwrap()));
        })
        .unwrap();
        let expected = [
            "number=18446744073709551615",
            "texts=[\"a\",\"\\u202e\"]",
            "inner.is_set=true",
            "inner.text=\"b\"",
            "items.0.is_set=true",
            "items.1.is_set=true",
            "items.1.text=\"c\"",
            "member=7",
        ];
        assert_eq!(leaves, expected);
        assert!(flatten(&(1, 2), &mut |_, _| {}).is_err());
    }
}
