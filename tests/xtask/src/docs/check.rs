//! Whether what stalltop writes is what the schema says.

use serde_json::Value;

use super::schema::{Content, Field, Kind, Schema, Shape};

impl Schema {
    /// Everything in `value` that is not as the schema has `kind`, with its place.
    pub(super) fn faults(&self, kind: &Kind, value: &Value, place: &str) -> Vec<String> {
        let fault = |what: &str| vec![format!("{place}: {what}: {value}")];
        match kind {
            Kind::Number if value.is_number() => Vec::new(),
            Kind::Text if value.is_string() => Vec::new(),
            Kind::Bool if value.is_boolean() => Vec::new(),
            Kind::True if *value == Value::Bool(true) => Vec::new(),
            Kind::Number | Kind::Text | Kind::Bool | Kind::True => fault("of another kind"),
            Kind::Optional(_) if value.is_null() => Vec::new(),
            Kind::Optional(of) => self.faults(of, value, place),
            Kind::Reading(of) => match value.get("off") {
                Some(off) => self.faults(&Kind::Named("Off".to_owned()), off, place),
                None => self.faults(of, value, place),
            },
            Kind::Array(of) => match value.as_array() {
                Some(all) => all
                    .iter()
                    .flat_map(|value| self.faults(of, value, &format!("{place}[]")))
                    .collect(),
                None => fault("no array"),
            },
            Kind::ByName(of) => match value.as_object() {
                Some(all) => all
                    .iter()
                    .flat_map(|(name, value)| self.faults(of, value, &format!("{place}.{name}")))
                    .collect(),
                None => fault("no object"),
            },
            Kind::Tuple(of) => match value.as_array() {
                Some(all) if all.len() == of.len() => of
                    .iter()
                    .zip(all)
                    .flat_map(|(kind, value)| self.faults(kind, value, &format!("{place}[]")))
                    .collect(),
                _ => fault("no such row"),
            },
            Kind::Named(name) => self.named(&self.types[name].shape, value, place),
        }
    }

    fn named(&self, shape: &Shape, value: &Value, place: &str) -> Vec<String> {
        match shape {
            Shape::Object(fields) => self.object(fields, &[], value, place),
            Shape::Same(kind) => self.faults(kind, value, place),
            Shape::Variants {
                tag: Some(tag),
                variants,
            } => {
                let name = value[tag].as_str().unwrap_or_default();
                match variants.iter().find(|variant| variant.name == name) {
                    None => vec![format!("{place}: no such {tag}: {value}")],
                    Some(variant) => match &variant.content {
                        Content::Nothing => self.object(&[], &[tag], value, place),
                        Content::Fields(fields) => self.object(fields, &[tag], value, place),
                        Content::Type(kind) => {
                            let mut inner = value.clone();
                            if let Some(object) = inner.as_object_mut() {
                                object.remove(tag);
                            }
                            self.faults(kind, &inner, place)
                        }
                    },
                }
            }
            Shape::Variants {
                tag: None,
                variants,
            } => {
                let only = value.as_object().filter(|object| object.len() == 1);
                let (name, content) = match only.and_then(|object| object.iter().next()) {
                    Some((name, content)) => (name.as_str(), Some(content)),
                    None => (value.as_str().unwrap_or_default(), None),
                };
                let found = variants.iter().find(|variant| variant.name == name);
                match (found.map(|variant| &variant.content), content) {
                    (Some(Content::Nothing), None) => Vec::new(),
                    (Some(Content::Fields(fields)), Some(content)) => {
                        self.object(fields, &[], content, place)
                    }
                    (Some(Content::Type(kind)), Some(content)) => self.faults(kind, content, place),
                    _ => vec![format!("{place}: no such value: {value}")],
                }
            }
        }
    }

    fn object(&self, fields: &[Field], more: &[&str], value: &Value, place: &str) -> Vec<String> {
        let Some(object) = value.as_object() else {
            return vec![format!("{place}: no object: {value}")];
        };
        let mut faults = Vec::new();
        for key in object.keys() {
            if !more.contains(&key.as_str()) && !fields.iter().any(|field| field.name == *key) {
                faults.push(format!("{place}: the schema has no {key}"));
            }
        }
        for field in fields {
            let place = format!("{place}.{}", field.name);
            match object.get(&field.name) {
                Some(value) => faults.extend(self.faults(&field.kind, value, &place)),
                None if matches!(field.kind, Kind::Optional(_)) => {}
                None => faults.push(format!("{place}: missing")),
            }
        }
        faults
    }
}
