//! Requires JSON objects for structs: serde also accepts an array, field by field in source order. `[5]` would then be
//! a limit of 5, so every body is parsed through this.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// A deserializer wrapper in which structs, at any depth, are parsed from objects only.
pub(super) struct Strict<D>(pub(super) D);

/// Below this, every integer has an exact float representation.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Restriction on a value, in addition to its own visitor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Any,
    /// Not an array.
    Object,
    /// An integer, including one written as a float: `3.0`, as Lua, PHP and R do.
    Whole,
}

macro_rules! forward {
    ($shape:ident: $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(StrictVisitor { visitor, shape: Shape::$shape })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    forward!(Any: deserialize_any deserialize_bool deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq
        deserialize_map deserialize_identifier deserialize_ignored_any);
    forward!(Whole: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, StrictVisitor { visitor, shape: Shape::Object })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

struct StrictVisitor<V> {
    visitor: V,
    shape: Shape,
}

macro_rules! visit {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for StrictVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shape == Shape::Object { f.write_str("an object") } else { self.visitor.expecting(f) }
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole and within the range that f64 holds exactly")]
    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        if self.shape == Shape::Whole && value.fract() == 0.0 && value.abs() < EXACT {
            return self.visitor.visit_i64(value as i64);
        }
        self.visitor.visit_f64(value)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        if self.shape == Shape::Object {
            return Err(A::Error::custom("must be an object, not an array"));
        }
        self.visitor.visit_seq(Within(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Within(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(Within(data))
    }
}

/// Wraps access to the parts of a value.
struct Within<A>(A);

struct Seed<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Seed(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Within<A> {
    type Error = A::Error;
    type Variant = Within<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(Seed(seed)).map(|(value, variant)| (value, Within(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Within<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Seed(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, StrictVisitor { visitor, shape: Shape::Any })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, StrictVisitor { visitor, shape: Shape::Object })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        inner: Option<Inner>,
        list: Vec<Inner>,
        number: i64,
    }

    fn read(json: &str) -> Result<Outer, String> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        Outer::deserialize(Strict(&mut deserializer)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_array_is_no_object_however_deep() {
        let right = Outer { inner: Some(Inner { a: 1 }), list: vec![Inner { a: 2 }], number: 3 };
        assert_eq!(read(r#"{"inner":{"a":1},"list":[{"a":2}],"number":3}"#), Ok(right));
        for json in [
            r#"[{"a":1},[{"a":2}],3]"#,
            r#"{"inner":[1],"list":[],"number":3}"#,
            r#"{"inner":null,"list":[[2]],"number":3}"#,
        ] {
            assert!(read(json).is_err_and(|error| error.contains("must be an object, not an array")), "{json}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_fraction() {
        let number = |number: &str| read(&format!(r#"{{"inner":null,"list":[],"number":{number}}}"#)).map(|o| o.number);
        assert_eq!(number("3.0"), Ok(3));
        assert_eq!(number("-3.0e2"), Ok(-300));
        assert!(number("3.5").is_err() && number("1e300").is_err());
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Plain,
        Named { inner: Inner },
        Pair(u8, u8),
    }

    fn read_as<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, String> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        T::deserialize(Strict(&mut deserializer)).map_err(|error| error.to_string())
    }

    #[test]
    fn variants_are_read_from_objects_too() {
        assert_eq!(read_as(r#""plain""#), Ok(Choice::Plain));
        assert_eq!(read_as(r#"{"named":{"inner":{"a":1}}}"#), Ok(Choice::Named { inner: Inner { a: 1 } }));
        assert_eq!(read_as(r#"{"pair":[1,2.0]}"#), Ok(Choice::Pair(1, 2)), "a tuple is an array");
        for json in [r#"{"named":[{"a":1}]}"#, r#"{"named":{"inner":[1]}}"#] {
            assert!(
                read_as::<Choice>(json).is_err_and(|error| error.contains("must be an object, not an array")),
                "{json}"
            );
        }
    }

    #[test]
    fn whole_numbers_stay_exact_to_the_ends_of_their_types() {
        assert_eq!(read_as::<u64>("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(read_as::<i64>("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(read_as::<u8>("255.0"), Ok(255));
        for json in ["256", "256.0", "-1", "-1.0", "0.1", "1e1000"] {
            assert!(read_as::<u8>(json).is_err(), "{json}");
        }
        assert!(read_as::<u64>("9007199254740992.0").is_err(), "a float that may have been rounded");
        assert_eq!(read_as::<u64>("9007199254740991.0"), Ok(9_007_199_254_740_991));
        assert_eq!(read_as::<u64>("900719925474099.0"), Ok(900_719_925_474_099));
        assert_eq!(read_as::<f64>("3"), Ok(3.0));
    }

    #[test]
    fn maps_and_options_are_read_as_they_are() {
        type Map = std::collections::BTreeMap<String, Option<Inner>>;
        let right = Map::from([("a".to_owned(), None), ("b".to_owned(), Some(Inner { a: 2 }))]);
        assert_eq!(read_as(r#"{"a":null,"b":{"a":2}}"#), Ok(right));
        assert!(read_as::<Map>(r#"{"b":[2]}"#).is_err());
        assert_eq!(read_as::<Option<(u8, Inner)>>(r#"[1,{"a":2}]"#), Ok(Some((1, Inner { a: 2 }))));
    }
}
