//! JSON as the contract reads it: members that are known, objects that are objects, and a pointer
//! to what is wrong.

use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::problem::{Problem, Result};

/// Reads JSON strictly: one value, members that `T` knows, and a pointer to what is wrong.
///
/// # Errors
///
/// 400 `bad-request`.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match Object::deserialize(&mut reader) {
        Ok(Object(value)) => {
            reader.end().map_err(|_| Problem::bad_request("the body goes on after its value"))?;
            Ok(value)
        }
        Err(error) => Err(misread::<T>(bytes, &error)),
    }
}

/// What is wrong, and where. Keeping the path takes as long as reading, so only a body that cannot
/// be read is read again with it.
fn misread<'a, T: Deserialize<'a>>(bytes: &'a [u8], error: &serde_json::Error) -> Problem {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let again = serde_path_to_error::deserialize::<_, Object<T>>(&mut reader);
    let pointer = again.err().map(|error| pointer_of(error.path())).unwrap_or_default();
    let problem = Problem::bad_request(error.to_string());
    if pointer.is_empty() { problem } else { problem.at(pointer) }
}

/// Reads a member that is an object, or is missing: for `#[serde(default, deserialize_with =
/// "object")]` on an `Option<T>`.
pub(crate) fn object<'de, T, D>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let object = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(object.map(|Object(value)| value))
}

/// What stands in the text as an object. By itself serde reads a list as a struct, too, one item
/// a field, which no contract of ours allows.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// A path into a JSON value as RFC 6901 writes it.
fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its type is looked at")]
        seats: Vec<u32>,
        #[expect(dead_code, reason = "only its type is looked at")]
        #[serde(default, deserialize_with = "object")]
        inner: Option<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its type is looked at")]
        count: u32,
    }

    fn refusal(body: &str) -> String {
        let problem = parse_json::<Sample>(body.as_bytes()).expect_err("a bad body");
        serde_json::to_string(&problem.body()).expect("text and numbers")
    }

    #[test]
    fn a_bad_body_says_where() {
        assert!(refusal(r#"{"seats":[1,"x"]}"#).contains(r#""pointer":"/seats/1""#));
        assert!(refusal(r#"{"seats":[],"a/b":1}"#).contains(r#""pointer":"/a~1b""#));
        assert!(refusal(r#"{"seats":[]} x"#).contains("goes on"));
        assert!(refusal("{").contains("bad-request"));
        let inner = r#"{"seats":[],"inner":{"count":"x"}}"#;
        assert!(refusal(inner).contains(r#""pointer":"/inner/count""#), "{}", refusal(inner));
    }

    #[test]
    fn a_list_is_no_object() {
        for good in [r#"{"seats":[1]}"#, r#"{"seats":[],"inner":{"count":1}}"#] {
            assert!(parse_json::<Sample>(good.as_bytes()).is_ok(), "{good}");
        }
        assert!(parse_json::<Sample>(br#"{"seats":[],"inner":null}"#).is_ok());
        assert!(refusal("[[1]]").contains("bad-request"));
        assert!(refusal(r#"{"seats":[],"inner":[1]}"#).contains(r#""pointer":"/inner""#));
    }
}
