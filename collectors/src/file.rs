//! Files that are read again each tick: kept open, read into a kept buffer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use stalltop_model::Reason;

/// Reads all of `file` from its start into `buf`, growing it as needed.
///
/// procfs, sysfs, tracefs and cgroupfs report no size, and generate their text anew
/// when read from offset 0, so a kept descriptor always gives the current state.
///
/// # Errors
/// What `pread(2)` reports.
pub fn read_from_start(file: &File, buf: &mut Vec<u8>) -> io::Result<()> {
    const FIRST: usize = 4096;
    buf.resize(buf.capacity().max(FIRST), 0);
    let mut len = 0;
    loop {
        if len == buf.len() {
            buf.resize(len * 2, 0);
        }
        match file.read_at(&mut buf[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                buf.clear();
                return Err(e);
            }
        }
    }
    buf.truncate(len);
    Ok(())
}

/// A file that is opened once and read at each tick.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    file: Option<File>,
    buf: Vec<u8>,
    /// The last failure: a source that stays missing must not allocate its reason each tick.
    failed: Option<(Option<i32>, Reason)>,
}

impl KeptFile {
    /// Names the file; it is opened at the first read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
            buf: Vec::new(),
            failed: None,
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The current contents. A file that fails is closed and opened anew next time.
    ///
    /// # Errors
    /// A [`Reason`] naming the path.
    pub fn read(&mut self) -> Result<&[u8], Reason> {
        let result = match &self.file {
            Some(file) => read_from_start(file, &mut self.buf),
            None => File::open(&self.path).and_then(|file| {
                read_from_start(&file, &mut self.buf)?;
                self.file = Some(file);
                Ok(())
            }),
        };
        match result {
            Ok(()) => Ok(&self.buf),
            Err(e) => {
                self.file = None;
                let errno = e.raw_os_error();
                match &self.failed {
                    Some((same, reason)) if *same == errno => Err(reason.clone()),
                    _ => {
                        let reason = Reason::from_io(&self.path.to_string_lossy(), &e);
                        self.failed = Some((errno, reason.clone()));
                        Err(reason)
                    }
                }
            }
        }
    }

    /// The current contents through `parse`, which gives the offending part of the bytes
    /// where it does not understand them.
    ///
    /// # Errors
    /// As [`KeptFile::read`], or a [`Reason::Parse`] with that part.
    pub fn parse<T>(
        &mut self,
        parse: impl for<'a> FnOnce(&'a [u8]) -> Result<T, &'a [u8]>,
    ) -> Result<T, Reason> {
        self.read()?;
        parse(&self.buf).map_err(|near| Reason::parse(&self.path.to_string_lossy(), near))
    }
}

/// Reads a small file whole, for the paths that are not taken each tick.
///
/// # Errors
/// A [`Reason`] naming the path.
pub fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    std::fs::read(path).map_err(|e| Reason::from_io(&path.to_string_lossy(), &e))
}

/// Reads a small text file, lossily decoded and trimmed.
///
/// # Errors
/// A [`Reason`] naming the path.
pub fn read_text(path: &Path) -> Result<String, Reason> {
    read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// Parses an unsigned decimal number at the start of `bytes`; gives it and the rest.
pub fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let mut n = 0u64;
    for b in &bytes[..digits] {
        n = n.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
    }
    Some((n, &bytes[digits..]))
}

/// Splits bytes into lines without their newline.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// Splits a line into words at blanks and tabs.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b' ' || *b == b'\t')
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_overflow() {
        assert_eq!(number(b"42 rest"), Some((42, &b" rest"[..])));
        assert_eq!(number(b"x"), None);
        assert_eq!(number(b"99999999999999999999"), None);
        assert_eq!(number(b"18446744073709551615"), Some((u64::MAX, &b""[..])));
    }

    #[test]
    fn a_kept_file_is_read_anew_and_larger_than_its_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "a").unwrap();
        let mut kept = KeptFile::new(&path);
        assert_eq!(kept.read().unwrap(), b"a");
        std::fs::write(&path, vec![b'z'; 50_000]).unwrap();
        assert_eq!(kept.read().unwrap().len(), 50_000);
        std::fs::write(&path, "").unwrap();
        assert_eq!(kept.read().unwrap(), b"");
        assert_eq!(
            KeptFile::new(dir.path().join("none"))
                .read()
                .unwrap_err()
                .to_string(),
            format!("{}/none does not exist", dir.path().display())
        );
    }
}
