//! Reads a plan as its text comes by, so that an import needs little more memory than the plan.
//!
//! The long lists stand one in the other: a document's zones, a zone's rows, a row's seats. Each
//! of these three is a [`Container`]: the items of its list are read one at a time, its other
//! fields are kept until the object ends, in whatever order they came.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::PlanError;
use super::json::{At, Json, Key, Object};
use super::pretix::Reader;

/// Reads the document; gives what is left of it when the zones have been read.
///
/// # Errors
///
/// The reader's refusal, or the parser's if the reader has none.
pub(super) fn read<'de, D: Deserializer<'de>>(
    reader: &mut Reader,
    from: D,
) -> Result<Json<'de>, D::Error> {
    from.deserialize_any(ObjectOf::<Document> { reader, at: &At::ROOT, number: 0, of: PhantomData })
}

/// An object with a long list.
trait Container {
    /// The field that has the list.
    const LIST: &'static str;

    /// Reads one item; `false` at the end of the list.
    fn item<'de, A: SeqAccess<'de>>(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        items: &mut A,
    ) -> Result<bool, A::Error>;

    /// Takes in the object's other fields. `listed` is whether it had the list.
    fn end(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        rest: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError>;
}

struct Document;
struct Zone;
struct Row;

impl Container for Document {
    const LIST: &'static str = "zones";

    fn item<'de, A: SeqAccess<'de>>(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        items: &mut A,
    ) -> Result<bool, A::Error> {
        let zone = ObjectOf::<Zone> { reader, at, number, of: PhantomData };
        Ok(items.next_element_seed(zone)?.is_some())
    }

    /// The other fields of a document are for the caller, who may find that it is no drawing.
    fn end(
        reader: &mut Reader,
        _: &At<'_>,
        _: usize,
        _: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError> {
        reader.zones_listed = listed;
        Ok(())
    }
}

impl Container for Zone {
    const LIST: &'static str = "rows";

    fn item<'de, A: SeqAccess<'de>>(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        items: &mut A,
    ) -> Result<bool, A::Error> {
        let row = ObjectOf::<Row> { reader, at, number, of: PhantomData };
        Ok(items.next_element_seed(row)?.is_some())
    }

    fn end(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        rest: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError> {
        reader.end_zone(at, number, rest, listed)
    }
}

impl Container for Row {
    const LIST: &'static str = "seats";

    fn item<'de, A: SeqAccess<'de>>(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        items: &mut A,
    ) -> Result<bool, A::Error> {
        let Some(seat) = items.next_element::<Json<'de>>()? else { return Ok(false) };
        let read = reader.seat(&at.item(number), &seat);
        read.map_err(|refusal| reader.refuse(refusal))?;
        Ok(true)
    }

    fn end(
        reader: &mut Reader,
        at: &At<'_>,
        number: usize,
        rest: &Object<'_>,
        listed: bool,
    ) -> Result<(), PlanError> {
        reader.end_row(at, number, rest, listed)
    }
}

/// Reads an object; `at` is the list it is in, or for the document the document.
struct ObjectOf<'x, C> {
    reader: &'x mut Reader,
    at: &'x At<'x>,
    number: usize,
    of: PhantomData<C>,
}

/// Reads the list of an object, which is at `at`; gives whether there was one.
struct ListOf<'x, C> {
    reader: &'x mut Reader,
    at: &'x At<'x>,
    of: PhantomData<C>,
}

impl<'de, C: Container> DeserializeSeed<'de> for ObjectOf<'_, C> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self).map(|_| ())
    }
}

impl<'de, C: Container> DeserializeSeed<'de> for ListOf<'_, C> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

/// What is neither an object nor a list is refused with a pointer, not with serde's words.
macro_rules! refuse_scalars {
    ($($visit:ident($value:ty)),*) => {
        $(
            fn $visit<E: Error>(self, _: $value) -> Result<Self::Value, E> {
                Err(self.wrong())
            }
        )*
    };
}

impl<C: Container> ObjectOf<'_, C> {
    fn wrong<E: Error>(self) -> E {
        let refusal = match C::LIST {
            Document::LIST => self.at.refuse("must be an object"),
            _ => self.at.item(self.number).refuse("must be an object"),
        };
        self.reader.refuse(refusal)
    }
}

impl<'de, C: Container> Visitor<'de> for ObjectOf<'_, C> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let item;
        let at = match C::LIST {
            Document::LIST => self.at,
            _ => {
                item = self.at.item(self.number);
                &item
            }
        };
        let mut rest = Vec::new();
        let mut listed = false;
        while let Some(Key(name)) = map.next_key()? {
            if name != C::LIST {
                rest.push((name, map.next_value()?));
                continue;
            }
            let list_at = at.field(C::LIST);
            if listed {
                return Err(self.reader.refuse(list_at.refuse("is there twice")));
            }
            let reader = &mut *self.reader;
            listed = map.next_value_seed(ListOf::<C> { reader, at: &list_at, of: PhantomData })?;
        }
        let rest = Object(rest);
        let ended = C::end(self.reader, at, self.number, &rest, listed);
        ended.map_err(|refusal| self.reader.refuse(refusal))?;
        Ok(Json::Object(rest))
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Err(self.wrong())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Json<'de>, A::Error> {
        Err(self.wrong())
    }

    refuse_scalars!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));
    refuse_scalars!(visit_str(&str));
}

impl<C: Container> ListOf<'_, C> {
    fn wrong<E: Error>(self) -> E {
        self.reader.refuse(self.at.refuse("must be a list"))
    }
}

impl<'de, C: Container> Visitor<'de> for ListOf<'_, C> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut number = 0;
        while C::item(self.reader, self.at, number, &mut items)? {
            number += 1;
        }
        Ok(true)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        Err(self.wrong())
    }

    refuse_scalars!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));
    refuse_scalars!(visit_str(&str));
}
