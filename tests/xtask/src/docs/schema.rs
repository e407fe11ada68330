//! The stream's schema, read from the sources of the types that are written: so the doc
//! comment that a developer reads is the one that a user of the stream reads.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Token, Type};

/// What a JSON value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Number,
    Text,
    Bool,
    /// `true` where nothing more is to be said than that it works.
    True,
    Array(Box<Kind>),
    /// An object whose keys are names of the kernel.
    ByName(Box<Kind>),
    /// The value, or `{"off": ...}`.
    Reading(Box<Kind>),
    /// The value, or `null`, or absent.
    Optional(Box<Kind>),
    /// Several values in a row.
    Tuple(Vec<Kind>),
    /// A type with a section of its own.
    Named(String),
}

/// One key of an object.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) doc: String,
}

/// One form of a type that has several.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) content: Content,
}

/// What belongs to a variant.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Nothing,
    Fields(Vec<Field>),
    Type(Kind),
}

/// How a type is written.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Object(Vec<Field>),
    /// Written as what it holds.
    Same(Kind),
    /// Without a tag, the variant's name is the key (or, without content, the whole value).
    Variants {
        tag: Option<String>,
        variants: Vec<Variant>,
    },
}

/// A type with a section of its own.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) doc: String,
    pub(super) shape: Shape,
}

/// All types that can be met below the root, the root first, then as they are met.
pub(super) struct Schema {
    pub(super) order: Vec<String>,
    pub(super) types: BTreeMap<String, Named>,
}

impl Schema {
    /// Reads the sources below a folder, and follows the types from `root`.
    pub(super) fn read(folder: &Path, root: &str) -> Result<Self> {
        let mut items = HashMap::new();
        collect(folder, &mut items)?;
        let mut schema = Self {
            order: vec![root.to_owned()],
            types: BTreeMap::new(),
        };
        let mut next = 0;
        while let Some(name) = schema.order.get(next).cloned() {
            let named = describe(&name, &items).with_context(|| name.clone())?;
            for kind in named.shape.kinds() {
                kind.visit(&mut |met| {
                    if !schema.order.iter().any(|known| known == met) {
                        schema.order.push(met.to_owned());
                    }
                });
            }
            schema.types.insert(name, named);
            next += 1;
        }
        Ok(schema)
    }
}

impl Shape {
    fn kinds(&self) -> Vec<&Kind> {
        match self {
            Self::Object(fields) => fields.iter().map(|field| &field.kind).collect(),
            Self::Same(kind) => vec![kind],
            Self::Variants { variants, .. } => variants
                .iter()
                .flat_map(|variant| match &variant.content {
                    Content::Nothing => Vec::new(),
                    Content::Fields(fields) => fields.iter().map(|field| &field.kind).collect(),
                    Content::Type(kind) => vec![kind],
                })
                .collect(),
        }
    }
}

impl Kind {
    fn visit(&self, each: &mut impl FnMut(&str)) {
        match self {
            Self::Named(name) => each(name),
            Self::Array(of) | Self::ByName(of) | Self::Optional(of) => of.visit(each),
            Self::Reading(of) => {
                of.visit(each);
                each("Off");
            }
            Self::Tuple(of) => of.iter().for_each(|kind| kind.visit(each)),
            Self::Number | Self::Text | Self::Bool | Self::True => {}
        }
    }
}

fn collect(folder: &Path, items: &mut HashMap<String, Item>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, items)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)?;
            let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            for item in file.items {
                match &item {
                    Item::Struct(found) => items.insert(found.ident.to_string(), item),
                    Item::Enum(found) => items.insert(found.ident.to_string(), item),
                    _ => None,
                };
            }
        }
    }
    Ok(())
}

fn describe(name: &str, items: &HashMap<String, Item>) -> Result<Named> {
    match name {
        // What `impl Serialize for Reading` writes of a reason.
        "Off" => return Ok(off()),
        "Softirq" => return softirq(items),
        "Hist" => {
            return Ok(Named {
                doc: doc(attributes(name, items)?),
                shape: Shape::Same(Kind::Array(Box::new(Kind::Number))),
            });
        }
        _ => {}
    }
    let (doc, shape) = match items.get(name).context("no such type in the sources")? {
        Item::Struct(item) => {
            let shape = match &item.fields {
                Fields::Named(named) => Shape::Object(fields(named.named.iter())?),
                Fields::Unnamed(tuple) if tuple.unnamed.len() == 1 => {
                    Shape::Same(kind(&tuple.unnamed[0].ty)?)
                }
                Fields::Unnamed(tuple) => {
                    let kinds: Result<_> =
                        tuple.unnamed.iter().map(|field| kind(&field.ty)).collect();
                    Shape::Same(Kind::Tuple(kinds?))
                }
                Fields::Unit => bail!("a unit struct in the stream"),
            };
            (doc(&item.attrs), shape)
        }
        Item::Enum(item) => {
            let style = serde(&item.attrs, "rename_all");
            let variants: Result<_> = item
                .variants
                .iter()
                .map(|v| variant(v, style.as_deref()))
                .collect();
            let shape = Shape::Variants {
                tag: serde(&item.attrs, "tag"),
                variants: variants?,
            };
            (doc(&item.attrs), shape)
        }
        _ => bail!("neither a struct nor an enum"),
    };
    Ok(Named { doc, shape })
}

fn off() -> Named {
    let text = |name: &str, doc: &str| Field {
        name: name.to_owned(),
        kind: Kind::Text,
        doc: doc.to_owned(),
    };
    Named {
        doc: "Not measured: never zero, always with the reason. It stands in place of the value \
              as `{\"off\": ...}`."
            .to_owned(),
        shape: Shape::Object(vec![
            text("reason", "Why not, for people"),
            text(
                "fix",
                "The exact command or setting that mends it; empty where nothing does",
            ),
            Field {
                name: "code".to_owned(),
                kind: Kind::Named("Reason".to_owned()),
                doc: "Why not, for programs".to_owned(),
            },
        ]),
    }
}

/// A softirq is written flat: its count, and each figure of its timing or an `off`.
fn softirq(items: &HashMap<String, Item>) -> Result<Named> {
    let object = |name| match describe(name, items)?.shape {
        Shape::Object(fields) => Ok(fields),
        _ => bail!("{name} is no object"),
    };
    let timing: Vec<Field> = object("SoftirqTiming")?;
    let mut fields = vec![Field {
        name: "count".to_owned(),
        kind: Kind::Number,
        doc: "How often the handler ran".to_owned(),
    }];
    fields.extend(timing.into_iter().map(|field| Field {
        kind: match field.kind {
            Kind::Number => Kind::Reading(Box::new(Kind::Number)),
            other => Kind::Optional(Box::new(other)),
        },
        ..field
    }));
    Ok(Named {
        doc: doc(attributes("Softirq", items)?),
        shape: Shape::Object(fields),
    })
}

fn attributes<'a>(name: &str, items: &'a HashMap<String, Item>) -> Result<&'a [Attribute]> {
    match items.get(name) {
        Some(Item::Struct(item)) => Ok(&item.attrs),
        Some(Item::Enum(item)) => Ok(&item.attrs),
        _ => bail!("no {name} in the sources"),
    }
}

fn fields<'a>(all: impl Iterator<Item = &'a syn::Field>) -> Result<Vec<Field>> {
    all.map(|field| {
        let own = field.ident.as_ref().context("a field without a name")?;
        let mut kind = kind(&field.ty)?;
        kind = match (serde(&field.attrs, "with").as_deref(), kind) {
            (Some("by_name"), Kind::Array(of)) => Kind::ByName(of),
            (Some("crate::reason::works"), Kind::Reading(_)) => Kind::Reading(Box::new(Kind::True)),
            (Some(with), _) => bail!("{own}: with = {with} is not known here"),
            (None, kind) => kind,
        };
        // A recording may be older than the key.
        let newer = serde(&field.attrs, "default").as_deref() == Some("Reading::not_recorded");
        let omitted = newer || serde(&field.attrs, "skip_serializing_if").is_some();
        if omitted && !matches!(kind, Kind::Optional(_)) {
            kind = Kind::Optional(Box::new(kind));
        }
        Ok(Field {
            name: serde(&field.attrs, "rename").unwrap_or_else(|| own.to_string()),
            kind,
            doc: doc(&field.attrs),
        })
    })
    .collect()
}

fn variant(variant: &syn::Variant, style: Option<&str>) -> Result<Variant> {
    let content = match &variant.fields {
        Fields::Unit => Content::Nothing,
        Fields::Named(named) => Content::Fields(fields(named.named.iter())?),
        Fields::Unnamed(tuple) => match tuple.unnamed.len() {
            1 => Content::Type(kind(&tuple.unnamed[0].ty)?),
            _ => bail!("{}: a variant with several unnamed fields", variant.ident),
        },
    };
    let own = variant.ident.to_string();
    let name = match (serde(&variant.attrs, "rename"), style) {
        (Some(name), _) => name,
        (None, Some("snake_case")) => snake(&own),
        (None, Some("SCREAMING_SNAKE_CASE")) => snake(&own).to_uppercase(),
        (None, None) => own,
        (None, Some(other)) => bail!("rename_all = {other} is not known here"),
    };
    Ok(Variant {
        name,
        doc: doc(&variant.attrs),
        content,
    })
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// How serde writes a Rust type.
fn kind(ty: &Type) -> Result<Kind> {
    match ty {
        Type::Array(array) => Ok(Kind::Array(Box::new(kind(&array.elem)?))),
        // What works, and has no value; `with` says how it is written.
        Type::Tuple(tuple) if tuple.elems.is_empty() => Ok(Kind::True),
        Type::Tuple(tuple) => {
            let kinds: Result<_> = tuple.elems.iter().map(kind).collect();
            Ok(Kind::Tuple(kinds?))
        }
        Type::Path(path) => {
            let last = path.path.segments.last().context("an empty path")?;
            let inner = || -> Result<Box<Kind>> {
                let PathArguments::AngleBracketed(list) = &last.arguments else {
                    bail!("{} without its argument", last.ident);
                };
                match list.args.first() {
                    Some(GenericArgument::Type(ty)) => Ok(Box::new(kind(ty)?)),
                    _ => bail!("{} without its argument", last.ident),
                }
            };
            Ok(match last.ident.to_string().as_str() {
                "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "f32"
                | "f64" => Kind::Number,
                "bool" => Kind::Bool,
                "Name" | "String" | "str" => Kind::Text,
                "Arc" | "Box" => *inner()?,
                "Vec" => Kind::Array(inner()?),
                "Option" => Kind::Optional(inner()?),
                "Reading" => Kind::Reading(inner()?),
                other => Kind::Named(other.to_owned()),
            })
        }
        _ => bail!("a type that this does not know"),
    }
}

/// The text of a `#[serde(key = "text")]`.
fn serde(attributes: &[Attribute], key: &str) -> Option<String> {
    let all = attributes.iter().filter(|a| a.path().is_ident("serde"));
    all.filter_map(|a| {
        a.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .ok()
    })
    .flatten()
    .find_map(|meta| match meta {
        Meta::NameValue(pair) if pair.path.is_ident(key) => text(&pair.value),
        _ => None,
    })
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// The doc comment, on one line, without links.
fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => text(&pair.value),
            _ => None,
        });
    let whole = lines
        .map(|line| line.trim().to_owned())
        .collect::<Vec<_>>()
        .join(" ");
    whole.trim().replace("[`", "`").replace("`]", "`")
}
