//! What a recording tells from its first sample to its last: the findings as a person would have
//! seen them come and go.

use stalltop_model::Model;
use stalltop_model::frame::Frame;
use stalltop_model::recording::{Player, Recording};
use stalltop_model::rules::Finding;

/// A finding, as it was when it said most.
#[derive(Clone, Debug)]
pub struct Told {
    /// `CLOCK_BOOTTIME` of the sample with which it came, ns.
    pub first_ns: u64,
    /// The same, of the last sample that had it.
    pub last_ns: u64,
    /// As it was last.
    pub finding: Finding,
}

/// Everything that a recording tells.
#[derive(Debug, Default)]
pub struct Story {
    /// Every finding by its rule, in the order in which they came.
    pub told: Vec<Told>,
    /// The model after the last frame.
    pub model: Model,
}

impl Story {
    /// Plays a recording to its end.
    ///
    /// # Panics
    /// Where it is none, or damaged.
    #[must_use]
    pub fn of(recording: Vec<u8>) -> Self {
        let recording = Recording::open(recording, |_| ()).expect("a recording");
        let mut player = Player::new(recording);
        let mut story = Self::default();
        while let Some(mut frame) = player.next_frame().expect("whole lines") {
            let is_sample = matches!(frame, Frame::Sample(_));
            story.model.apply(&mut frame);
            if is_sample {
                story.note();
            }
        }
        story
    }

    fn note(&mut self) {
        let at_ns = self.model.now().at_ns;
        for finding in self.model.findings() {
            match self.told.iter_mut().find(|t| t.finding.id == finding.id) {
                Some(told) => {
                    told.last_ns = at_ns;
                    told.finding = finding.clone();
                }
                None => self.told.push(Told {
                    first_ns: at_ns,
                    last_ns: at_ns,
                    finding: finding.clone(),
                }),
            }
        }
    }

    /// The finding of a rule.
    ///
    /// # Panics
    /// Where it was never told.
    #[must_use]
    pub fn finding(&self, id: &str) -> &Told {
        let told = self.told.iter().find(|told| told.finding.id == id);
        told.unwrap_or_else(|| {
            let sentences: Vec<_> = self.told.iter().map(|t| &t.finding.sentence).collect();
            panic!("{id} was never told, but {sentences:#?}")
        })
    }
}
