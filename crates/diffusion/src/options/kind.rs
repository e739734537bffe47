//! What the type of an option can hold, asked of its `Deserialize`.

use std::borrow::Cow;

use serde::{
    de::{Deserialize, Deserializer, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};

/// What a value can be by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Flag,
    /// A whole number from 0 on.
    Whole,
    /// Any number.
    Number,
    /// Any text.
    Text,
    /// One of these names.
    Names(&'static [&'static str]),
    /// A list.
    List,
    /// Named values.
    Object,
    /// The same or nothing.
    Maybe(Box<Kind>),
}

impl Kind {
    /// The kind of a type. Its `Deserialize` asks for what it wants, and gets an error.
    pub fn of<'de, T: Deserialize<'de>>() -> Self {
        let mut kind = None;
        // What it comes to is an error in any case: there is nothing to read.
        let _ = T::deserialize(Probe(&mut kind));
        kind.unwrap_or(Self::Object)
    }

    /// It in words, but for whether there may be nothing.
    pub fn plainly(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Flag => "true or false",
            Self::Whole => "a whole number, 0 or more",
            Self::Number => "a number",
            Self::Text => "text",
            Self::List => "a list, such as [\"a\", \"b\"]",
            Self::Object => "an object of options; what is left out keeps its default",
            Self::Names(names) => return format!("one of {}", names.join(", ")).into(),
            Self::Maybe(kind) => return kind.plainly(),
        })
    }

    /// Whether there may be nothing.
    pub(crate) fn nullable(&self) -> bool {
        matches!(self, Self::Maybe(_))
    }
}

/// Notes what is asked for.
struct Probe<'a>(&'a mut Option<Kind>);

impl Probe<'_> {
    fn note<T>(self, kind: Kind) -> Result<T, Error> {
        *self.0 = Some(kind);
        Err(Error::custom("there is nothing to read"))
    }
}

macro_rules! noted {
    ($($method:ident)* => $kind:ident) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.note(Kind::$kind)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    noted!(deserialize_bool => Flag);
    noted!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 => Whole);
    noted!(deserialize_f32 deserialize_f64 => Number);
    noted!(deserialize_str deserialize_string => Text);
    noted!(deserialize_seq => List);
    noted!(deserialize_map deserialize_any => Object);

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(Kind::Names(variants))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut inner = None;
        let _ = visitor.visit_some(Probe(&mut inner));
        self.note(Kind::Maybe(Box::new(inner.unwrap_or(Kind::Object))))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    #[allow(dead_code, reason = "only what it can be is asked")]
    enum Rows {
        LastWord,
        All,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only what it can be is asked")]
    struct Part {
        eta: f64,
    }

    #[test]
    fn a_type_says_what_it_can_hold() {
        assert_eq!(Kind::of::<bool>(), Kind::Flag);
        assert_eq!(Kind::of::<usize>(), Kind::Whole);
        assert_eq!(Kind::of::<f64>(), Kind::Number);
        assert_eq!(Kind::of::<String>(), Kind::Text);
        assert_eq!(Kind::of::<Vec<String>>(), Kind::List);
        assert_eq!(Kind::of::<Part>(), Kind::Object);
        assert_eq!(Kind::of::<Rows>(), Kind::Names(&["last-word", "all"]));
        let maybe = Kind::of::<Option<f64>>();
        assert!(maybe.nullable());
        assert_eq!(maybe.plainly(), "a number");
        assert_eq!(Kind::of::<Rows>().plainly(), "one of last-word, all");
    }
}
