//! The configuration file as a tree in which every key and value knows where it stands.
//!
//! serde stops at the first mistake and forgets places; a person with five mistakes wants five carets. So the file is
//! read into this tree first, the tree is checked as a whole, and only a tree without a mistake becomes the typed
//! [`Config`](super::Config).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned};

use super::problem::{Place, Problem};

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What YAML knows.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl Node {
    /// Reads the text of a file. A text that is not YAML has one problem, because nothing sensible can be said after it.
    pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
        let options = serde_saphyr::options! {
            // Both entries of a duplicate key come through, so that they are reported beside all else.
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            // `on: no` is text where text is wanted; only true and false are truth.
            strict_booleans: true,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options::<Node>(text, options) {
            Ok(node) => Ok(node),
            Err(error) => {
                let place = error.location().map_or(Place::START, Place::from);
                // The library may add the place in words, which the caret says already.
                let message = error.without_snippet().to_string();
                let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
                Err(Problem::new(place, format!("this is not YAML: {message}")))
            }
        }
    }

    /// Appends the value as JSON, with the keys of maps in order.
    pub(crate) fn canonical(&self, text: &mut String) {
        let quoted = |value: &str| serde_json::Value::from(value).to_string();
        match &self.value {
            Value::Null => text.push_str("null"),
            Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Value::Number(value) => text.push_str(&value.to_string()),
            Value::Text(value) => text.push_str(&quoted(value)),
            Value::List(items) => {
                text.push('[');
                for item in items {
                    item.canonical(text);
                    text.push(',');
                }
                text.push(']');
            }
            Value::Map(entries) => {
                let mut entries: Vec<&(Key, Node)> = entries.iter().collect();
                entries.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
                text.push('{');
                for (key, value) in entries {
                    text.push_str(&quoted(&key.name));
                    text.push(':');
                    value.canonical(text);
                    text.push(',');
                }
                text.push('}');
            }
        }
    }

    /// The entries, if this is a map.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items, if this is a list.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value under a key, if this is a map that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The same without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(*value),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::Text(text) => serde_json::Value::String(text.clone()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect(),
        }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        Place { line: whole(location.line()), column: whole(location.column()), length: whole(location.span().len()) }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { value: spanned.value, place: spanned.referenced.into() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                // Infinity and NaN are numbers to YAML but to nothing here.
                Ok(serde_json::Number::from_f64(value).map_or_else(|| Value::Text(value.to_string()), Value::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
                    entries.push((Key { name: key.value, place: key.referenced.into() }, value));
                }
                Ok(Value::Map(entries))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}
