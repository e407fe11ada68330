//! What flows: the same frames live, from a recording, and out of `stalltop stream`.

use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::change::Entry;
use crate::sample::{Host, Sample, Stall};

/// Version of the JSON form of frames. Raised when a reader of the previous version
/// would misread a line; added fields do not raise it.
pub const SCHEMA: u32 = 1;

/// One line of a stream or recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Frame {
    /// First of all: whose frames these are.
    Header(Box<Header>),
    /// One tick.
    Sample(Box<Sample>),
    /// A stall was seen.
    Stall(Box<Stall>),
    /// A change to the host was planned, done, or undone.
    Change(Box<Entry>),
    /// A kind of line that a newer stalltop writes: read over.
    Unknown,
}

/// The first line of a stream or recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Always `stalltop`.
    pub format: Name,
    /// The schema: [`SCHEMA`] of the stalltop that wrote it.
    pub schema: u32,
    /// The version of the stalltop that wrote it.
    pub version: Name,
    /// Time between samples, ns.
    pub tick_ns: u64,
    /// Facts about the host.
    pub host: Host,
}

impl Header {
    /// The header of this stalltop's own frames.
    pub fn new(version: &str, tick_ns: u64, host: Host) -> Self {
        Self {
            format: "stalltop".into(),
            schema: SCHEMA,
            version: version.into(),
            tick_ns,
            host,
        }
    }
}

/// Bytes of a sample's line that are read at most. 1,024 CPUs and 10,000 cgroups take about
/// 10 MB, 8,192 CPUs of which little is measured 60 MB.
pub(crate) const LONGEST_SAMPLE: usize = 128 << 20;
/// Bytes of any other line: a plan that writes thousands of files takes a few MB.
const LONGEST_OTHER: usize = 16 << 20;

impl Frame {
    /// Parses one line. Reads the type first and then the body straight into its own type,
    /// where serde's internally tagged enums would buffer the whole line as generic values.
    ///
    /// # Errors
    /// What the JSON parser says, with its column; or that the line is longer, or a list in it
    /// has more items, than any that stalltop writes.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        let tag: Tag<'_> = serde_json::from_slice(line)?;
        let longest = match &*tag.kind {
            "sample" => LONGEST_SAMPLE,
            _ => LONGEST_OTHER,
        };
        if line.len() > longest {
            return Err(serde_json::Error::custom(format_args!(
                "it is longer than {} MB",
                longest >> 20
            )));
        }
        Ok(match &*tag.kind {
            "header" => Self::Header(serde_json::from_slice(line)?),
            "sample" => {
                let mut sample: Box<Sample> = serde_json::from_slice(line)?;
                sample.bound();
                Self::Sample(sample)
            }
            "stall" => {
                let mut stall: Box<Stall> = serde_json::from_slice(line)?;
                stall.bound();
                Self::Stall(stall)
            }
            "change" => Self::Change(serde_json::from_slice(line)?),
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_newer_kinds_are_read_over() {
        let frame = Frame::Sample(Box::new(Sample {
            at_ns: 5,
            ..Sample::default()
        }));
        let line = serde_json::to_vec(&frame).unwrap();
        assert!(line.starts_with(br#"{"type":"sample","at_ns":5,"#));
        assert_eq!(Frame::parse(&line).unwrap(), frame);
        assert_eq!(
            Frame::parse(br#"{"type":"lock","x":1}"#).unwrap(),
            Frame::Unknown
        );
        assert!(Frame::parse(b"{}").is_err());
    }
}
