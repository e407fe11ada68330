//! Patterns as the kernel matches them (lib/glob.c, `glob_match`).

/// A pattern of literal characters, `*`, `?` and `[a-z]` or `[!a-z]`; `\` takes the
/// next character as it is. As in the kernel an unclosed `[` is a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// The pattern's text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Whether the pattern can match one name only, and that is its text.
    pub(crate) fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?', '[', '\\'])
    }

    /// Whether the whole of `name` matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on after the last `*`: the pattern behind it, and the next start in the name.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        if p == pattern.len() && n == name.len() {
            return true;
        }
        let step = name.get(n).and_then(|c| one(&pattern[p..], *c));
        match (step, retry) {
            (Some(taken), _) => {
                p += taken;
                n += 1;
            }
            (None, Some((after, start))) if start < name.len() => {
                p = after;
                n = start + 1;
                retry = Some((after, n));
            }
            (None, _) => return false,
        }
    }
}

/// Matches one character against the head of a pattern; gives the pattern's bytes used up.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        b'[' => match class(pattern, c) {
            Some((hit, len)) => hit.then_some(len),
            None => (c == b'[').then_some(1),
        },
        literal => (literal == c).then_some(1),
    }
}

/// `[a-z0]` or `[!a-z0]` at the head of a pattern: whether it holds `c`, and its length.
/// `None` where the bracket is never closed.
fn class(pattern: &[u8], c: u8) -> Option<(bool, usize)> {
    let inverted = pattern.get(1) == Some(&b'!');
    let first = if inverted { 2 } else { 1 };
    let mut i = first;
    let mut hit = false;
    loop {
        let low = *pattern.get(i)?;
        // A bracket right at the start is a member, not the end.
        if low == b']' && i > first {
            return Some((hit != inverted, i + 1));
        }
        let mut high = low;
        if pattern.get(i + 1) == Some(&b'-') && pattern.get(i + 2).is_some_and(|b| *b != b']') {
            high = pattern[i + 2];
            i += 2;
        }
        hit |= (low..=high).contains(&c);
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernels_own_tests_have_it() {
        // From glob_selftest in lib/glob.c: expectation, pattern, name.
        for (want, pattern, name) in [
            (true, "a", "a"),
            (false, "a", "b"),
            (false, "a", "aa"),
            (false, "a", ""),
            (true, "", ""),
            (false, "", "a"),
            (true, "[a]", "a"),
            (false, "[a]", "b"),
            (false, "[!a]", "a"),
            (true, "[!a]", "b"),
            (true, "[ab]", "b"),
            (false, "[ab]", "c"),
            (true, "[!ab]", "c"),
            (true, "[a-c]", "b"),
            (false, "[a-c]", "d"),
            (true, "[a-c-e-g]", "-"),
            (false, "[a-c-e-g]", "d"),
            (true, "[a-c-e-g]", "f"),
            (true, "[]a-ceg-ik[]", "a"),
            (true, "[]a-ceg-ik[]", "]"),
            (true, "[]a-ceg-ik[]", "["),
            (false, "[]a-ceg-ik[]", "d"),
            (true, "?", "a"),
            (false, "?", "aa"),
            (true, "?x?", "axb"),
            (false, "*??", "a"),
            (true, "*??", "abc"),
            (true, "??*", "ab"),
            (true, "**?*?", "abc"),
            (true, "*bcd*", "abcabcabcabcdabcabc"),
            (true, "*ab*cd", "abcabcabcabcefg_abcd"),
            (false, "*abcd*", "abcabcabcabcefg"),
            (true, "a*", "a"),
            (true, r"\*", "*"),
            (false, r"\*", "a"),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), want, "{pattern} {name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_a_literal_matches_itself(p in ".{0,20}", n in ".{0,20}") {
            let _ = Glob::new(&p).matches(&n);
            let literal = Glob::new(&n);
            proptest::prop_assert!(!literal.is_literal() || literal.matches(&n));
        }
    }
}
