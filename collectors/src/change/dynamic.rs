//! The lines of `dynamic_events`, `kprobe_events` and `uprobe_events`
//! (Documentation/trace/kprobetrace.rst, uprobetracer.rst).

/// One line, taken apart: `p:GROUP/NAME PLACE ARGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// `p`, `r`, `e`, `f`, `t`, `s`, or something newer.
    pub(crate) kind: char,
    /// `GROUP/NAME`.
    pub(crate) item: &'a str,
    /// The whole line, which re-creates the event.
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    /// Group and name.
    pub(crate) fn names(&self) -> (&'a str, &'a str) {
        self.item.split_once('/').unwrap_or(("", self.item))
    }
}

/// The lines of such a file; those that are not understood are left out.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let text = line.trim();
        // `r16:kprobes/x ...`: a number between kind and colon is the maxactive of kretprobes.
        let (kind, item) = text.split_whitespace().next()?.split_once(':')?;
        let letter = kind.chars().next().filter(char::is_ascii_lowercase)?;
        let count = kind[1..].bytes().all(|b| b.is_ascii_digit());
        (count && item.contains('/')).then_some(Line {
            kind: letter,
            item,
            text,
        })
    })
}

/// The definition of an event, one line per probe (an event may have several since 5.3);
/// empty if it is not there.
pub(crate) fn definition_of(text: &str, item: &str) -> String {
    let all: Vec<&str> = lines(text)
        .filter(|line| line.item == item)
        .map(|line| line.text)
        .collect();
    all.join("\n")
}

/// Whether a line makes (`p:GROUP/NAME ...`) or removes (`-:GROUP/NAME`) one named event:
/// never one without a name, which could be any.
pub(crate) fn is_command(line: &str) -> bool {
    let named = |item: &str| {
        item.split_once('/')
            .is_some_and(|(group, name)| !group.is_empty() && !name.is_empty())
    };
    match line.strip_prefix("-:") {
        Some(item) => named(item) && !item.contains(' '),
        None => lines(line).next().is_some_and(|l| named(l.item)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "p:kprobes/a vfs_read arg1=%di\n\
        r16:kprobes/b vfs_read ret=$retval\n\
        p:kprobes/a vfs_write\n\
        p:st/c /bin/bash:0x00000000000c6c20 arg=%ax\n\
        s:synthetic/lat u64 d\nnonsense\n\n:x\np:\n";

    #[test]
    fn lines_are_found_by_item() {
        assert_eq!(lines(TEXT).count(), 5);
        assert_eq!(
            definition_of(TEXT, "kprobes/a"),
            "p:kprobes/a vfs_read arg1=%di\np:kprobes/a vfs_write"
        );
        assert_eq!(lines(TEXT).nth(1).map(|l| l.kind), Some('r'));
        assert_eq!(lines(TEXT).nth(3).map(|l| l.names()), Some(("st", "c")));
        assert_eq!(definition_of(TEXT, "kprobes/nosuch"), "");
        assert_eq!(definition_of(TEXT, ""), "");
    }

    #[test]
    fn commands_name_one_event() {
        assert!(is_command("-:kprobes/a") && is_command("r16:kprobes/b vfs_read"));
        for no in [
            "-:",
            "-:a",
            "-:/a",
            "-:a/",
            "p:a vfs_read",
            "p vfs_read",
            "-:a/b c",
            "!x",
        ] {
            assert!(!is_command(no), "{no}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "(\\PC|[\n:/ pr])*") {
            for line in lines(&text) {
                proptest::prop_assert!(!definition_of(&text, line.item).is_empty());
            }
        }
    }
}
