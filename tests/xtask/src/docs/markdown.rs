//! The schema for people.

use std::fmt::Write as _;

use super::schema::{Content, Field, Kind, Schema, Shape};

const INTRODUCTION: &str = "\
# The stream of stalltop

<!-- Written by `cargo xtask docs` from the doc comments of this crate: change those. -->

`stalltop stream` prints one JSON object per line, a [`Frame`](#frame). The first line is a
`header`, which names the schema; each tick is a `sample`, each stall a `stall`, told within
about a second of its end. A recording is the same lines, compressed: `zstdcat FILE` prints them.

Counters are raw and cumulative since `cores.since_ns`; rates are the reader's to derive from
two samples and their `at_ns`. Times are nanoseconds, sizes bytes. What is not measured is
[`{\"off\": ...}`](#off), never 0.

The schema's number is raised when a reader of the previous one would misread a line. Added
keys do not raise it: leave out what you do not know. A key that \"may be absent\" is also absent
from recordings that are older than it.
";

/// The whole document.
pub(super) fn write(schema: &Schema, version: u32) -> String {
    let mut out = format!("{INTRODUCTION}\nThis is schema {version}.\n");
    for name in &schema.order {
        let named = &schema.types[name];
        let _ = write!(out, "\n## {name}\n\n{}\n", named.doc);
        match &named.shape {
            Shape::Object(fields) => table(&mut out, "key", fields),
            Shape::Same(kind) => {
                let _ = write!(out, "\nWritten as {}.\n", kind.words());
            }
            Shape::Variants { tag, variants } => {
                let heading = match tag {
                    Some(tag) => format!("`{tag}`"),
                    None => "value".to_owned(),
                };
                let _ = write!(out, "\n| {heading} | with | meaning |\n|---|---|---|\n");
                for variant in variants {
                    let with = match &variant.content {
                        Content::Nothing => String::new(),
                        Content::Fields(fields) => {
                            let keys: Vec<_> = fields.iter().map(brief).collect();
                            keys.join("; ")
                        }
                        Content::Type(kind) if tag.is_some() => {
                            format!("the keys of {}", kind.words())
                        }
                        Content::Type(kind) => kind.words(),
                    };
                    let _ = writeln!(
                        out,
                        "| `{}` | {with} | {} |",
                        variant.name,
                        cell(&variant.doc)
                    );
                }
            }
        }
    }
    out
}

fn table(out: &mut String, first: &str, fields: &[Field]) {
    let _ = write!(out, "\n| {first} | value | meaning |\n|---|---|---|\n");
    for field in fields {
        let (name, words, doc) = (&field.name, field.kind.words(), cell(&field.doc));
        let _ = writeln!(out, "| `{name}` | {words} | {doc} |");
    }
}

fn brief(field: &Field) -> String {
    format!(
        "`{}`: {}, {}",
        field.name,
        field.kind.words(),
        cell(field.doc.trim_end_matches('.'))
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

impl Kind {
    fn words(&self) -> String {
        match self {
            Self::Number => "number".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::True => "true".to_owned(),
            Self::Array(of) => format!("array of {}", of.words()),
            Self::ByName(of) => format!("object by name of {}", of.words()),
            Self::Reading(of) => format!("{} or [off](#off)", of.words()),
            Self::Optional(of) => format!("{}, may be absent", of.words()),
            Self::Tuple(of) => {
                let words: Vec<_> = of.iter().map(Self::words).collect();
                format!("[{}]", words.join(", "))
            }
            Self::Named(name) => format!("[{name}](#{})", name.to_lowercase()),
        }
    }
}
