//! Lines of text with labels at the left.

use crate::text;
use crate::theme::Role;

use super::super::watch::Part;

/// Width of the labels at the left.
const LABEL: usize = 10;

/// Lines under labels, wrapped to a width.
pub(super) struct Page {
    pub lines: Vec<Vec<Part>>,
    width: usize,
}

impl Page {
    pub(super) fn new(width: usize) -> Self {
        Self {
            lines: Vec::new(),
            width,
        }
    }

    /// Cells beside the labels.
    pub(super) fn room(&self) -> usize {
        self.width.saturating_sub(LABEL + 1)
    }

    /// Text behind a label; further lines stand under the first.
    pub(super) fn put(&mut self, label: &str, text: &str, role: Role) {
        self.parts(label, vec![(text.to_owned(), role)]);
    }

    /// Differently painted text behind a label, broken at blanks.
    pub(super) fn parts(&mut self, label: &str, parts: Vec<Part>) {
        let room = self.room().max(8);
        let mut line: Vec<Part> = Vec::new();
        let mut used = 0;
        let mut lines: Vec<Vec<Part>> = Vec::new();
        for (text, role) in parts {
            let mut first = true;
            for word in text.split(' ') {
                let gap = usize::from(!first && used > 0);
                first = false;
                let wide = text::width(word);
                if used > 0 && used + gap + wide > room {
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                } else if gap > 0 {
                    line.push((" ".to_owned(), role));
                    used += 1;
                }
                for piece in text::wrap(word, room) {
                    if used > 0 && used + text::width(&piece) > room {
                        lines.push(std::mem::take(&mut line));
                        used = 0;
                    }
                    used += text::width(&piece);
                    line.push((piece, role));
                }
            }
        }
        lines.push(line);
        for (i, line) in lines.into_iter().enumerate() {
            self.line(if i == 0 { label } else { "" }, line);
        }
    }

    /// One line behind a label, as it is.
    pub(super) fn line(&mut self, label: &str, line: Vec<Part>) {
        let mut all = vec![(text::left(label, LABEL), Role::Dim)];
        all.extend(line);
        self.lines.push(all);
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.lines.push(Vec::new());
    }
}
