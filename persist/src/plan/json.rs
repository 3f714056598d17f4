//! A small borrowed JSON tree, and the pointers that refusals name.
//!
//! `serde_json::Value` would do, but it copies every key and string into a tree of maps; a plan
//! of 100,000 seats has a million keys, and nothing of the tree outlives the import.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::PlanError;

/// What is said of a number that is none, or too large to be one.
pub(super) const FINITE: &str = "must be a finite number";

/// A JSON value that borrows from the text where it can.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Null,
    Bool,
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// The fields of an object in the order of the text.
#[derive(Debug)]
pub(super) struct Object<'a>(pub(super) Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Object<'a> {
    /// The value of `name`, the last one if it is there twice; `None` if missing or null.
    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        let (_, value) = self.0.iter().rev().find(|(field, _)| field == name)?;
        (!matches!(value, Json::Null)).then_some(value)
    }
}

/// The refusal of a text that the parser does not like. The parser keeps no path, so that the
/// usual case does not pay for it; here the text is read again to find one.
pub(super) fn syntax_error(bytes: &[u8], error: &serde_json::Error) -> PlanError {
    let path = RefCell::new(Vec::new());
    let _ = Locate(&path).deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    let mut pointer = String::new();
    for step in path.into_inner() {
        step.write(&mut pointer);
    }
    PlanError { pointer, reason: error.to_string() }
}

/// One step from the root of a document towards a value.
#[derive(Clone, Debug)]
pub(super) enum Step<'a> {
    Field(Cow<'a, str>),
    Item(usize),
}

impl Step<'_> {
    /// Writes it as RFC 6901 has it.
    fn write(&self, out: &mut String) {
        out.push('/');
        match self {
            Step::Field(name) => out.push_str(&name.replace('~', "~0").replace('/', "~1")),
            Step::Item(index) => write!(out, "{index}").expect("a String takes every write"),
        }
    }
}

/// Where in the document the reader is. It lives on the stack of the functions that descend, so
/// that it costs nothing unless something is refused.
#[derive(Clone, Debug)]
pub(super) struct At<'p> {
    above: Option<(&'p At<'p>, Step<'p>)>,
}

impl<'p> At<'p> {
    /// The whole document.
    pub(super) const ROOT: At<'static> = At { above: None };

    /// A field of the object that is here.
    pub(super) fn field(&'p self, name: &'p str) -> At<'p> {
        At { above: Some((self, Step::Field(Cow::Borrowed(name)))) }
    }

    /// An item of the list that is here.
    pub(super) fn item(&'p self, index: usize) -> At<'p> {
        At { above: Some((self, Step::Item(index))) }
    }

    /// The refusal of what is here.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> PlanError {
        PlanError { pointer: self.pointer(), reason: reason.into() }
    }

    /// The pointer to what is here.
    pub(super) fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, out: &mut String) {
        if let Some((parent, step)) = &self.above {
            parent.write(out);
            step.write(out);
        }
    }

    /// The value of a field that the object here must have.
    pub(super) fn required<'j, 'a>(
        &self,
        object: &'j Object<'a>,
        field: &str,
    ) -> Result<&'j Json<'a>, PlanError> {
        object.get(field).ok_or_else(|| self.field(field).refuse("is missing"))
    }

    /// The object that must be here.
    pub(super) fn object<'j, 'a>(&self, json: &'j Json<'a>) -> Result<&'j Object<'a>, PlanError> {
        match json {
            Json::Object(object) => Ok(object),
            _ => Err(self.refuse("must be an object")),
        }
    }

    /// The list that must be here.
    pub(super) fn list<'j, 'a>(&self, json: &'j Json<'a>) -> Result<&'j [Json<'a>], PlanError> {
        match json {
            Json::List(list) => Ok(list),
            _ => Err(self.refuse("must be a list")),
        }
    }

    /// The text that must be here.
    pub(super) fn text<'j>(&self, json: &'j Json<'_>) -> Result<&'j str, PlanError> {
        match json {
            Json::Text(text) => Ok(text),
            _ => Err(self.refuse("must be a text")),
        }
    }

    /// The finite number that must be here.
    pub(super) fn number(&self, json: &Json<'_>) -> Result<f64, PlanError> {
        match json {
            Json::Number(number) if number.is_finite() => Ok(*number),
            _ => Err(self.refuse(FINITE)),
        }
    }

    /// The whole number from 1 to `max` that must be here.
    pub(super) fn count(&self, json: &Json<'_>, max: u32) -> Result<u32, PlanError> {
        match json {
            Json::Number(n) if n.fract() == 0.0 && *n >= 1.0 && *n <= f64::from(max) => {
                Ok(*n as u32)
            }
            _ => Err(self.refuse(format!("must be a whole number from 1 to {max}"))),
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(name)) = map.next_key()? {
            fields.push((name, map.next_value()?));
        }
        Ok(Json::Object(Object(fields)))
    }
}

/// A key of an object, borrowed if it has no escapes.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }

        from.deserialize_str(KeyVisitor)
    }
}

/// Walks through a document and keeps the path to where it is: after an error, the path to it.
struct Locate<'p, 'de>(&'p RefCell<Vec<Step<'de>>>);

impl<'de> Locate<'_, 'de> {
    fn below(&self, step: Step<'de>) -> Self {
        self.0.borrow_mut().push(step);
        Locate(self.0)
    }

    fn up(&self) {
        self.0.borrow_mut().pop();
    }
}

impl<'de> DeserializeSeed<'de> for Locate<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list.next_element_seed(self.below(Step::Item(index)))?.is_some() {
            self.up();
            index += 1;
        }
        self.up();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = map.next_key()? {
            map.next_value_seed(self.below(Step::Field(name)))?;
            self.up();
        }
        Ok(())
    }
}
