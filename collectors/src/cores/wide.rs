//! Counters that the kernel keeps in 32 bits, carried on in 64.

/// A 32-bit counter of the kernel, followed past its wrap.
///
/// At 500,000 packets/s the kernel's own counter wraps every two and a half hours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wide {
    raw: u32,
    total: Option<u64>,
}

impl Wide {
    /// Takes the kernel's value and gives the whole count. A step of more than half the
    /// range is a counter that went back (an interrupt that was freed): the count stays.
    pub(super) fn update(&mut self, raw: u32) -> u64 {
        let total = match self.total {
            None => u64::from(raw),
            Some(total) => {
                let step = raw.wrapping_sub(self.raw);
                if step > u32::MAX / 2 {
                    total
                } else {
                    total + u64::from(step)
                }
            }
        };
        self.raw = raw;
        self.total = Some(total);
        total
    }

    /// The whole count so far, once the counter was seen.
    pub(super) fn total(self) -> Option<u64> {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrap_goes_on_and_a_step_back_does_not_count() {
        let mut wide = Wide::default();
        assert_eq!(wide.total(), None);
        assert_eq!(wide.update(u32::MAX - 1), 0xffff_fffe);
        assert_eq!(wide.update(3), 0x1_0000_0003);
        assert_eq!(wide.update(2), 0x1_0000_0003);
        assert_eq!(wide.update(12), 0x1_0000_000d);
    }
}
