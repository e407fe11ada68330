//! How long is looked at, from when on a difference counts, and what that may cost in false alarms:
//! every constant that bears on it.
//!
//! Of changes that do nothing, no more than one in two hundred may be said to have moved something,
//! at any of the looks at it (tests: `noise_moves_nothing_in_all_figures_at_all_times`,
//! `bursts_of_stalls_are_no_effect`, `a_host_that_wavers_is_left_alone`). A change is looked at
//! some 65 times, in 12 figures of the host and up to 4 holders; neighbouring looks share most
//! of their points and are worth a handful of independent ones.
//!
//! | test | of | from | chance of one look at one figure |
//! |---|---|---|---|
//! | ranks (Mann-Whitney) | figures, holders, delays of stalls | [`LEAST_Z`] | 2.7e-5, two-sided |
//! | far apart | the same | [`FAR`] times, no overlap | at most [`FAR_CHANCE`], far less where it wavers by less than tenfold |
//! | deviations | the same | [`LEAST_DEVIATIONS`], by points that lie apart by [`APART_CHANCE`] at most | below ranks where it is normal |
//! | seconds with stalls (Fisher) | stalls | [`STALLS_CHANCE`] | that, once for fewer and once for more |

/// How far is looked at on both sides of a change, ns.
pub(super) const SIDE_NS: u64 = 60_000_000_000;
/// Time that must have been watched on both sides before anything is said, ns.
pub(super) const LEAST_NS: u64 = 5_000_000_000;
/// The same of stalls, which are few, ns.
pub(super) const STALLS_LEAST_NS: u64 = 10_000_000_000;

/// Points of one side at most: the nearest to the change.
pub(super) const MOST: usize = 64;
/// Points of one side at least.
pub(super) const LEAST: usize = 5;
/// Windows of costs of both sides that tell what is plain.
pub(super) const FEW: usize = 2;
/// Stalls before the change from which on a difference means anything.
pub(super) const LEAST_STALLS: u32 = 3;

/// From which |z| on ranks differ.
pub(super) const LEAST_Z: f64 = 4.2;
/// From how many deviations on medians differ.
pub(super) const LEAST_DEVIATIONS: f64 = 5.0;
/// How likely points of both sides may be to lie apart by chance, where that is needed for a step.
pub(super) const APART_CHANCE: f64 = 1e-3;
/// So many times less or more is far apart.
pub(super) const FAR: f64 = 10.0;
/// How likely points may be to lie far apart by chance.
pub(super) const FAR_CHANCE: f64 = 2.5e-4;
/// Autocorrelation is not taken for higher than this.
pub(super) const MOST_ALIKE: f64 = 0.9;
/// How likely it may be that seconds with stalls fall to one side by chance. It is looked at again
/// with every second.
pub(super) const STALLS_CHANCE: f64 = 2e-4;
