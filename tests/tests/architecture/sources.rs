//! What the sources say, read as tokens: comments and strings do not count.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are in a folder of the workspace")
        .to_owned()
}

/// The text of a file, by its path below [`root`].
pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All Rust sources below a folder.
pub(crate) fn rust_files(folder: &str) -> Vec<String> {
    files(folder, ".rs")
}

/// The files below a folder whose path ends so, by their path below [`root`], sorted. Hidden
/// folders and what cargo builds are left out.
pub(crate) fn files(folder: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}")) {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(end) {
                let below = path.strip_prefix(root()).expect("below the root");
                found.push(below.to_str().expect("a path in UTF-8").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn tokens(text: &str) -> Vec<TokenTree> {
    text.parse::<TokenStream>()
        .expect("Rust tokens")
        .into_iter()
        .collect()
}

/// Whether the keyword `unsafe` stands anywhere, also inside a macro.
pub(crate) fn names_unsafe(text: &str) -> bool {
    fn any(tokens: impl IntoIterator<Item = TokenTree>) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == "unsafe",
            TokenTree::Group(group) => any(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    any(tokens(text))
}

/// Every path of two or more names, `use` groups taken apart: `use std::{fs, time::Instant}`
/// gives `std::fs` and `std::time::Instant`. Items under `#[cfg(test)]` are left out.
pub(crate) fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&tokens(text), "", &mut found);
    found
}

/// Collects the paths in a list of tokens; `prefix` is what stands before its braces.
fn walk(tokens: &[TokenTree], prefix: &str, found: &mut Vec<String>) {
    let mut at = 0;
    while at < tokens.len() {
        if is_test_only(&tokens[at..]) {
            at = after_item(tokens, at + 2);
            continue;
        }
        match &tokens[at] {
            TokenTree::Ident(first) => {
                let mut path = join(prefix, &first.to_string());
                at += 1;
                let mut whole = true;
                while is_double_colon(&tokens[at..]) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => {
                            path = join(&path, &next.to_string());
                            at += 3;
                        }
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            let inner: Vec<_> = group.stream().into_iter().collect();
                            walk(&inner, &path, found);
                            whole = false;
                            at += 3;
                        }
                        _ => at += 2,
                    }
                }
                if whole && path.contains("::") {
                    found.push(path);
                }
            }
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                walk(&inner, "", found);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}::{name}")
    }
}

fn is_double_colon(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..]
        if a.as_char() == ':' && b.as_char() == ':')
}

fn is_test_only(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(hash), TokenTree::Group(group), ..]
        if hash.as_char() == '#' && group.stream().to_string().replace(' ', "") == "cfg(test)")
}

/// Where the item that begins at `at` ends: after its braces or its semicolon.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    tokens[at..]
        .iter()
        .position(|token| match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        })
        .map_or(tokens.len(), |item| at + item + 1)
}

#[test]
fn paths_are_found_wherever_they_hide() {
    let text = r#"
        //! std::fs in a comment
        use std::{collections::BTreeMap, fs::{self, File}, time::{Duration, Instant}};
        const TEXT: &str = "std::net";
        fn now() { println!("{:?}", std::time::SystemTime::now()); }
        #[cfg(test)]
        mod tests { use std::process::Command; }
        #[cfg(test)]
        use std::thread;
        fn last() { std::env::var("x"); }
    "#;
    assert_eq!(
        paths(text),
        [
            "std::collections::BTreeMap",
            "std::fs::self",
            "std::fs::File",
            "std::time::Duration",
            "std::time::Instant",
            "std::time::SystemTime::now",
            "std::env::var",
        ]
    );
}

#[test]
fn unsafe_is_a_keyword_not_a_word() {
    assert!(names_unsafe("fn f() { m!(unsafe { g() }) }"));
    assert!(!names_unsafe("// unsafe\nfn unsafely() { g(\"unsafe\") }"));
}
