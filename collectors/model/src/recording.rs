//! Recordings: the lines of `stalltop stream`, compressed, in groups.
//!
//! A recording is a plain zstd file (RFC 8878): `zstdcat FILE` prints the stream. It is a
//! sequence of zstd frames, here called groups, of up to [`GROUP`] samples; each group begins
//! with the header line, so that any of them can be decoded alone, and each line is flushed,
//! so that a file cut off anywhere is good up to its last whole line.
//!
//! A stall takes about 0.1 KB with the tick's few samples, 1 KB with 100 samples of the 1 kHz
//! sampler and 6 KB with 600, the most that one holds.

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;
use zstd::zstd_safe;

use crate::frame::{Frame, Header, LONGEST_SAMPLE, SCHEMA};

/// Samples in a group: one minute at the default tick.
pub const GROUP: u32 = 60;
/// The compression level: repeated lines shrink no further at higher ones.
const LEVEL: i32 = 3;
/// Text of a group, in bytes, from which on the writer begins the next one: what a reader
/// holds in memory at a time.
const GROUP_BYTES: usize = 16 << 20;
/// Text of a group that a reader accepts: a few hundred bytes of zstd can hold gigabytes.
const LARGEST_GROUP: usize = 256 << 20;

/// Why a file is not a recording that can be shown.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// It does not start as a zstd file does.
    #[error("it is not a stalltop recording (a zstd file; this one begins with {begins})")]
    NotZstd {
        /// The first bytes, in hexadecimal.
        begins: String,
    },
    /// It is cut off before its first whole line.
    #[error("it is cut off before its first whole line")]
    NoHeader,
    /// Its first line is not a header.
    #[error("line 1 is not the header of a stalltop recording: {why}")]
    BadHeader {
        /// What the parser says.
        why: String,
    },
    /// A newer stalltop wrote it.
    #[error("it has schema {have}, this stalltop reads up to {SCHEMA}: use version {by} or newer")]
    TooNew {
        /// Its schema.
        have: u32,
        /// The stalltop that wrote it.
        by: String,
    },
    /// A group's compressed data is damaged: bits flipped, or a bomb.
    #[error(
        "the group at byte {offset} is damaged ({why}): {samples} samples of it are shown, to be doubted"
    )]
    Damaged {
        /// Where the group begins in the file.
        offset: usize,
        /// What the decompressor says.
        why: String,
        /// Whole samples that came out of it.
        samples: usize,
    },
    /// A line in the middle is not a frame.
    #[error("line {line} of the group at byte {offset} is not a frame: {why}")]
    BadLine {
        /// Number of the line within its group, from 1.
        line: usize,
        /// Where the group begins in the file.
        offset: usize,
        /// What the parser says.
        why: String,
    },
}

/// Writes frames as they come.
pub struct Recorder<W: Write> {
    encoder: Option<Encoder<'static, W>>,
    header: Box<Header>,
    line: Vec<u8>,
    in_group: u32,
    group_bytes: usize,
}

impl<W: Write> Recorder<W> {
    /// Starts a recording with its header.
    ///
    /// # Errors
    /// What writing reports.
    pub fn new(out: W, header: Header) -> io::Result<Self> {
        let mut recorder = Self {
            encoder: None,
            header: Box::new(header),
            line: Vec::new(),
            in_group: 0,
            group_bytes: 0,
        };
        recorder.begin_group(out)?;
        Ok(recorder)
    }

    fn begin_group(&mut self, out: W) -> io::Result<()> {
        let mut encoder = Encoder::new(out, LEVEL)?;
        encoder.include_checksum(true)?;
        self.line.clear();
        serde_json::to_writer(
            &mut self.line,
            &HeaderLine {
                kind: "header",
                header: &self.header,
            },
        )?;
        self.line.push(b'\n');
        encoder.write_all(&self.line)?;
        encoder.flush()?;
        self.encoder = Some(encoder);
        self.in_group = 0;
        self.group_bytes = 0;
        Ok(())
    }

    /// Writes one frame and flushes it, so that it survives whatever comes next.
    ///
    /// # Errors
    /// What writing reports.
    pub fn write(&mut self, frame: &Frame) -> io::Result<()> {
        // Only a sample begins a group: a group without one could not be found again, and what
        // comes between two samples belongs to the one before.
        if matches!(frame, Frame::Sample(_))
            && (self.in_group == GROUP || self.group_bytes >= GROUP_BYTES)
            && let Some(encoder) = self.encoder.take()
        {
            let out = encoder.finish()?;
            self.begin_group(out)?;
        }
        self.line.clear();
        serde_json::to_writer(&mut self.line, frame)?;
        self.line.push(b'\n');
        let encoder = self
            .encoder
            .as_mut()
            .ok_or_else(|| io::Error::other("an earlier write to this recording failed"))?;
        encoder.write_all(&self.line)?;
        encoder.flush()?;
        self.group_bytes += self.line.len();
        if matches!(frame, Frame::Sample(_)) {
            self.in_group += 1;
        }
        Ok(())
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// What writing reports.
    pub fn finish(mut self) -> io::Result<W> {
        match self.encoder.take() {
            Some(encoder) => encoder.finish(),
            None => Err(io::Error::other(
                "an earlier write to this recording failed",
            )),
        }
    }
}

/// The header as a line without cloning it into a [`Frame`].
#[derive(serde::Serialize)]
struct HeaderLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    header: &'a Header,
}

/// Where a group is, and when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    offset: usize,
    end: usize,
    /// `at_ns` of its first sample.
    at_ns: u64,
    /// Whether the file ends within it, which [`Recording::note`] tells.
    cut: bool,
}

/// A recording held in memory, compressed.
pub struct Recording {
    data: Vec<u8>,
    header: Box<Header>,
    groups: Vec<Group>,
    end_ns: u64,
    note: Option<String>,
}

impl Recording {
    /// Whether a file that begins with these four bytes can be a recording.
    pub fn may_be(begins: &[u8]) -> bool {
        begins.starts_with(&zstd_safe::MAGICNUMBER.to_le_bytes())
    }

    /// Indexes a recording. `progress` is called with the share done, 0 to 1.
    ///
    /// # Errors
    /// [`RecordingError`] if not even one line can be shown. A cut or damaged end is no
    /// error: [`Recording::note`] tells.
    pub fn open(data: Vec<u8>, mut progress: impl FnMut(f32)) -> Result<Self, RecordingError> {
        if data.is_empty() {
            return Err(RecordingError::Empty);
        }
        if !Self::may_be(&data) {
            let begins = data.iter().take(4).map(|b| format!("{b:02x}")).collect();
            return Err(RecordingError::NotZstd { begins });
        }
        let mut groups = Vec::new();
        let mut header = Err(RecordingError::NoHeader);
        let mut note = None;
        let mut offset = 0;
        let mut text = Vec::new();
        while offset < data.len() {
            progress(offset as f32 / data.len() as f32);
            let whole = zstd_safe::find_frame_compressed_size(&data[offset..]).ok();
            let end = whole.map_or(data.len(), |len| offset + len);
            let first = first_lines(&data[offset..end], &mut text);
            if let (Err(_), Some(line)) = (&header, first.header) {
                header = parse_header(line);
            }
            let cut = whole.is_none();
            // A damaged group without a first sample is played for what can be told of it.
            let before = groups.last().map_or(0, |g: &Group| g.at_ns);
            if first.at_ns.is_some() || (first.damaged && !cut) {
                groups.push(Group {
                    offset,
                    end,
                    at_ns: first.at_ns.unwrap_or(before),
                    cut,
                });
            }
            if whole.is_none() {
                note = Some(cut_note(&data[offset..], offset, &mut text));
                break;
            }
            offset = end;
        }
        progress(1.0);
        let header = header?;
        let mut recording = Self {
            data,
            header,
            groups,
            end_ns: 0,
            note,
        };
        // Of recordings that were put together the last may end before the first begins.
        let begin_ns = recording.groups.first().map_or(0, |g| g.at_ns);
        recording.end_ns = recording.last_sample_ns().max(begin_ns);
        Ok(recording)
    }

    /// Whose recording it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What is wrong with its end, if anything: where it was cut off.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// `at_ns` of the first and the last sample; `None` if it has none.
    pub fn span_ns(&self) -> Option<(u64, u64)> {
        Some((self.groups.first()?.at_ns, self.end_ns))
    }

    fn last_sample_ns(&self) -> u64 {
        let Some(group) = self.groups.last() else {
            return 0;
        };
        let mut text = Vec::new();
        // Damage is told when the group is played.
        let _ = decode(&self.data[group.offset..group.end], &mut text);
        let times = whole_lines(&text).filter_map(sample_time);
        times.last().unwrap_or(group.at_ns)
    }
}

/// Plays a [`Recording`] from any point.
pub struct Player {
    recording: Recording,
    group: usize,
    text: Vec<u8>,
    at: usize,
    line: usize,
    /// The header line that holds: the recording's first, or that of another recording which
    /// was appended.
    header: Vec<u8>,
    /// What is wrong with the present group, told when its lines are played.
    damage: Option<RecordingError>,
}

impl Player {
    /// A player at the start.
    pub fn new(recording: Recording) -> Self {
        let mut player = Self {
            recording,
            group: 0,
            text: Vec::new(),
            at: 0,
            line: 0,
            header: Vec::new(),
            damage: None,
        };
        player.load(0);
        player.header = player.first_line().to_vec();
        player
    }

    /// The recording.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    fn load(&mut self, group: usize) {
        self.group = group;
        self.at = 0;
        self.line = 0;
        self.text.clear();
        self.damage = None;
        if let Some(g) = self.recording.groups.get(group) {
            let end = decode(&self.recording.data[g.offset..g.end], &mut self.text);
            let whole = self.text.iter().rposition(|b| *b == b'\n');
            self.text.truncate(whole.map_or(0, |i| i + 1));
            if let (Err(why), false) = (end, g.cut) {
                self.damage = Some(RecordingError::Damaged {
                    offset: g.offset,
                    why: why.to_string(),
                    samples: whole_lines(&self.text).filter_map(sample_time).count(),
                });
            }
        }
    }

    fn first_line(&self) -> &[u8] {
        whole_lines(&self.text).next().unwrap_or_default()
    }

    /// Goes to the last group that begins at or before `at_ns`: the next sample is at most
    /// a minute of recording early.
    pub fn seek(&mut self, at_ns: u64) {
        let after = self.recording.groups.partition_point(|g| g.at_ns <= at_ns);
        self.load(after.saturating_sub(1));
    }

    /// The next frame; `None` at the end. The headers of later groups are passed over where they
    /// say the same.
    ///
    /// # Errors
    /// [`RecordingError::BadLine`], [`RecordingError::Damaged`], and of another recording's header
    /// [`RecordingError::BadHeader`] and [`RecordingError::TooNew`]; calling again goes on with
    /// the next line or group.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, RecordingError> {
        loop {
            if self.at >= self.text.len() {
                if let Some(damage) = self.damage.take() {
                    return Err(damage);
                }
                if self.group + 1 >= self.recording.groups.len() {
                    return Ok(None);
                }
                self.load(self.group + 1);
                continue;
            }
            let rest = &self.text[self.at..];
            let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let line = &rest[..len];
            self.at += len + 1;
            self.line += 1;
            // Recordings may have been put together: another header is another host or boot.
            if self.line == 1 && self.group > 0 {
                if *line == self.header {
                    continue;
                }
                self.header = line.to_vec();
                return parse_header(&self.header).map(|header| Some(Frame::Header(header)));
            }
            return match Frame::parse(line) {
                Ok(frame) => Ok(Some(frame)),
                Err(error) => Err(RecordingError::BadLine {
                    line: self.line,
                    offset: self.recording.groups[self.group].offset,
                    why: error.to_string(),
                }),
            };
        }
    }
}

/// Decompresses as much as there is.
///
/// # Errors
/// What ends it early: the end of the data, a checksum that does not match, or more text
/// than a group may hold. What came before is in `text`.
fn decode(group: &[u8], text: &mut Vec<u8>) -> io::Result<()> {
    text.clear();
    let mut decoder = Decoder::with_buffer(group)?.single_frame();
    let mut chunk = [0u8; 64 * 1024];
    loop {
        match decoder.read(&mut chunk)? {
            0 => return Ok(()),
            n => text.extend_from_slice(&chunk[..n]),
        }
        if text.len() > LARGEST_GROUP {
            return Err(io::Error::other("it holds more than any recording does"));
        }
    }
}

struct FirstLines<'a> {
    header: Option<&'a [u8]>,
    at_ns: Option<u64>,
    /// Whether the decompressor gave up.
    damaged: bool,
}

/// The header line and the time of the first sample, decoding no more than needed.
fn first_lines<'a>(group: &[u8], text: &'a mut Vec<u8>) -> FirstLines<'a> {
    text.clear();
    let mut at_ns = None;
    let mut damaged = false;
    if let Ok(mut decoder) = Decoder::with_buffer(group).map(Decoder::single_frame) {
        let mut chunk = [0u8; 16 * 1024];
        // Where the last line begins, which may not be whole yet.
        let mut line = 0;
        while text.len() < LONGEST_SAMPLE {
            let n = match decoder.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(_) => {
                    damaged = true;
                    break;
                }
            };
            text.extend_from_slice(&chunk[..n]);
            // Only a chunk that ends a line brings a whole one: a line of megabytes is looked
            // through once.
            let Some(end) = chunk[..n].iter().rposition(|b| *b == b'\n') else {
                continue;
            };
            at_ns = whole_lines(&text[line..]).find_map(sample_time);
            if at_ns.is_some() {
                break;
            }
            line = text.len() - n + end + 1;
        }
    }
    FirstLines {
        header: whole_lines(text).next(),
        at_ns,
        damaged,
    }
}

fn parse_header(line: &[u8]) -> Result<Box<Header>, RecordingError> {
    match Frame::parse(line) {
        Ok(Frame::Header(header)) if &*header.format != "stalltop" => {
            Err(RecordingError::BadHeader {
                why: "its format is not \"stalltop\"".into(),
            })
        }
        Ok(Frame::Header(header)) if header.schema > SCHEMA => Err(RecordingError::TooNew {
            have: header.schema,
            by: crate::printable(&header.version).into_owned(),
        }),
        Ok(Frame::Header(header)) => Ok(header),
        Ok(_) => Err(RecordingError::BadHeader {
            why: "it is another kind of line".into(),
        }),
        Err(error) => Err(RecordingError::BadHeader {
            why: error.to_string(),
        }),
    }
}

fn cut_note(group: &[u8], offset: usize, text: &mut Vec<u8>) -> String {
    // That it ends early is what is told here.
    let _ = decode(group, text);
    let samples = whole_lines(text).filter_map(sample_time).count();
    format!(
        "the recording is cut off or damaged in the group at byte {offset}: \
         {samples} whole samples of that group are shown"
    )
}

fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|b| *b == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
}

/// `at_ns` of a sample line; our writer puts it second, right after the type.
fn sample_time(line: &[u8]) -> Option<u64> {
    let mut rest = line;
    // As stalltop writes it, or with the spaces that other tools put in.
    for word in [
        &b"{"[..],
        b"\"type\"",
        b":",
        b"\"sample\"",
        b",",
        b"\"at_ns\"",
        b":",
    ] {
        rest = rest.trim_ascii_start().strip_prefix(word)?;
    }
    let digits = rest.trim_ascii_start();
    let len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}
