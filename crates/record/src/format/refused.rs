// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forms of values that records do not have, and that no serializer here takes.

use serde::ser::Error as _;
use serde_json::Error;

/// Fails for a value of such a form.
pub(super) fn refused<T>() -> Result<T, Error> {
    Err(Error::custom("a record has no such value"))
}

/// Defines the methods of a `Serializer` for bytes, and for tuples with a name.
macro_rules! refuse_forms {
    () => {
        fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
            refused()
        }

        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, Error> {
            refused()
        }

        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, Error> {
            refused()
        }

        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, Error> {
            refused()
        }
    };
}

pub(super) use refuse_forms;
