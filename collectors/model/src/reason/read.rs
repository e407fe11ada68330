//! How readings and reasons are read back, without putting any of the text aside first: as
//! serde's own untagged and tagged enums do, in many times the bytes that stand in the line.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    DeserializeSeed, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{OffBody, Reading, Reason};

/// Fields of a reason at most: those of newer ones are read over.
const FIELDS: usize = 8;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Reading<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A value, or an object that begins with `off`.
struct Either<T>(PhantomData<T>);

/// Hands a plain value on to the type that it is of.
macro_rules! plain {
    ($($name:ident: $type:ty),*) => {
        $(fn $name<E: Error>(self, value: $type) -> Result<Self::Value, E> {
            T::deserialize(value.into_deserializer()).map(Reading::Value)
        })*
    };
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
    type Value = Reading<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or why there is none")
    }

    plain!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        T::deserialize(().into_deserializer()).map(Reading::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(Reading::Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let first = map.next_key::<String>()?;
        if first.as_deref() == Some("off") {
            let body: OffBody = map.next_value()?;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Reading::Off(body.code));
        }
        T::deserialize(MapAccessDeserializer::new(Resumed { first, rest: map })).map(Reading::Value)
    }
}

/// An object of which the first key was looked at.
struct Resumed<A> {
    first: Option<String>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Resumed<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(first.into_deserializer()).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = deserializer.deserialize_map(Fields)?;
        // The reading that serde derives, of what is small by now.
        Self::deserialize(Value::Object(fields)).map_err(D::Error::custom)
    }
}

/// The fields of a reason: names and numbers.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = serde_json::Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reason")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while fields.len() < FIELDS
            && let Some((key, Field(value))) = map.next_entry()?
        {
            fields.insert(key, value);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(fields)
    }
}

/// A name or a number; anything else is read over.
struct Field(Value);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Small;

        impl<'de> Visitor<'de> for Small {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field of a reason")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(text.into())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
                Ok(number.into())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                Ok(number.into())
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_unit<E: Error>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Null)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Null)
            }
        }

        deserializer.deserialize_any(Small).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reading<Vec<u8>>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_newer_versions_add_is_read_over() {
        let off = r#"{"off":{"reason":"","fix":"","new":[1,{"a":2}],"code":{"kind":"io","more":[[]],
            "path":"/x","also":{"b":1.5},"errno":5,"is":true}},"beside":{}}"#;
        let expected = Reason::Io {
            path: "/x".into(),
            errno: 5,
        };
        assert_eq!(read(off), Ok(Reading::Off(expected)));
        let error = read(r#"{"off":{"reason":"","fix":"","code":{"kind":"unheard_of"}}}"#);
        assert!(error.unwrap_err().contains("unheard_of"));
    }

    #[test]
    fn values_of_every_shape_come_back() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Shape {
            Unit,
            Some { x: i64, y: f64 },
        }
        type Shapes = Vec<Reading<Shape>>;
        let shapes: Shapes = serde_json::from_str(r#"["unit",{"some":{"x":-1,"y":2}}]"#).unwrap();
        let some = Shape::Some { x: -1, y: 2.0 };
        assert_eq!(shapes, [Reading::Value(Shape::Unit), Reading::Value(some)]);
        assert_eq!(read("[1,2]"), Ok(Reading::Value(vec![1, 2])));
        assert!(read("{}").is_err() && read("null").is_err());
        let escaped: Reading<crate::Name> = serde_json::from_str(r#""a\n""#).unwrap();
        assert_eq!(escaped, Reading::Value("a\n".into()));
    }
}
