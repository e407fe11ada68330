//! The kernel's own trace as a second opinion: lines of `trace_pipe` become spans. Pure.
//!
//! Lines look like `  comm-77 [001] d.s4.  2401.934446: softirq_raise: vec=3 [action=NET_RX]`
//! (kernel/trace/trace_output.c, `trace_print_context`). A comm may hold anything: a line that is
//! not understood is left out.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::plan::Injector;

/// Spans shorter than this are left out, ns.
const SHORTEST_NS: u64 = 3_000_000;

/// What lasted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A vector was pending: raise to entry.
    Pending(u32),
    /// A handler ran: entry to exit.
    Handler(u32),
    /// A task waited for the CPU: woken or preempted, until switched to. Its comm.
    Waited(String),
    /// The system call kill(2) of a process.
    Kill(u32),
}

/// Something that lasted, by the kernel's trace: `CLOCK_BOOTTIME` to the microsecond, in ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What.
    pub what: What,
    /// From when.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
}

impl Span {
    /// Whether it is what an injector makes, in a process.
    pub fn is_of(&self, injector: Injector, pid: u32) -> bool {
        match (injector, &self.what) {
            (Injector::Pending, What::Pending(vector))
            | (Injector::Handler | Injector::HandlerNft, What::Handler(vector)) => {
                *vector == NET_RX
            }
            (Injector::Ksoftirqd, What::Waited(comm)) => comm.starts_with("ksoftirqd/"),
            // Where the kernel did not wake ksoftirqd, the vectors waited all the same.
            (Injector::Ksoftirqd, What::Pending(_)) => true,
            (Injector::NoResched | Injector::RealTime, What::Waited(comm)) => comm == WAITER,
            (Injector::IrqsOff, What::Kill(of)) => *of == pid,
            _ => false,
        }
    }
}

/// The comm of the thread that waits for [`Injector::NoResched`] and [`Injector::RealTime`].
pub(super) const WAITER: &str = "st-waiter";
/// `NET_RX_SOFTIRQ` (include/linux/interrupt.h).
const NET_RX: u32 = 3;

/// Events of a tracefs instance that are needed, with their filters; `kill` is the number of
/// that system call.
pub(super) fn events(kill: i64) -> Vec<(&'static str, Option<String>)> {
    let comms = |field: &str| format!(r#"{field} == "{WAITER}" || {field} ~ "ksoftirqd/*""#);
    let switch = || format!("{} || {}", comms("prev_comm"), comms("next_comm"));
    let kill = || Some(format!("id == {kill}"));
    vec![
        ("irq/softirq_raise", None),
        ("irq/softirq_entry", None),
        ("irq/softirq_exit", None),
        ("sched/sched_wakeup", Some(comms("comm"))),
        ("sched/sched_switch", Some(switch())),
        ("raw_syscalls/sys_enter", kill()),
        ("raw_syscalls/sys_exit", kill()),
    ]
}

/// What began and has not ended yet, on one CPU.
#[derive(Debug, Default)]
pub struct Spans {
    open: HashMap<Open, u64>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Open {
    Pending(u32),
    Handler(u32),
    Waited(u32),
    Kill(u32),
}

/// Tasks and processes that are followed at once, at most.
const FOLLOWED: usize = 1024;

impl Spans {
    /// Takes a line; gives a span that ended with it, if it was long.
    pub fn line(&mut self, line: &str) -> Option<Span> {
        let (head, rest) = line.split_once("] ")?;
        let pid = head
            .rsplit_once(" [")
            .and_then(|(task, _)| task.trim_end().rsplit_once('-'))
            .and_then(|(_, pid)| pid.parse().ok())?;
        let (time, event) = rest.split_once(": ")?;
        let at_ns = nanoseconds(time.rsplit(' ').next()?)?;
        let (event, text) = event.split_once(": ")?;
        let vector = || field(text, "vec=");
        let (what, from_ns) = match event {
            "softirq_raise" => {
                // Raised again while pending: it waits since the first.
                self.open.entry(Open::Pending(vector()?)).or_insert(at_ns);
                return None;
            }
            "softirq_entry" => {
                let vector = vector()?;
                self.begin(Open::Handler(vector), at_ns);
                (
                    What::Pending(vector),
                    self.open.remove(&Open::Pending(vector))?,
                )
            }
            "softirq_exit" => {
                let vector = vector()?;
                (
                    What::Handler(vector),
                    self.open.remove(&Open::Handler(vector))?,
                )
            }
            "sched_wakeup" => {
                self.begin(Open::Waited(field(text, " pid=")?), at_ns);
                return None;
            }
            "sched_switch" => {
                let (prev, next) = text.split_once(" ==> next_comm=")?;
                // A task that was preempted waits on, without being woken.
                if is_followed(prev.strip_prefix("prev_comm=")?) && prev.contains(" prev_state=R") {
                    self.begin(Open::Waited(field(prev, " prev_pid=")?), at_ns);
                }
                let from_ns = self
                    .open
                    .remove(&Open::Waited(field(next, " next_pid=")?))?;
                let (comm, _) = next.split_once(" next_pid=")?;
                (What::Waited(comm.to_owned()), from_ns)
            }
            "sys_enter" => {
                self.begin(Open::Kill(pid), at_ns);
                return None;
            }
            "sys_exit" => (What::Kill(pid), self.open.remove(&Open::Kill(pid))?),
            _ => return None,
        };
        (at_ns.saturating_sub(from_ns) >= SHORTEST_NS).then_some(Span {
            what,
            from_ns,
            to_ns: at_ns,
        })
    }

    fn begin(&mut self, what: Open, at_ns: u64) {
        if self.open.len() < FOLLOWED {
            self.open.insert(what, at_ns);
        }
    }
}

/// Whether a text that begins with a comm is about a task whose waits are looked for.
fn is_followed(text: &str) -> bool {
    text.starts_with("ksoftirqd/") || text.starts_with(WAITER)
}

/// The number behind a name in an event's text.
fn field(text: &str, name: &str) -> Option<u32> {
    let (_, rest) = text.split_once(name)?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// `2401.934446` in ns.
fn nanoseconds(time: &str) -> Option<u64> {
    let (seconds, micros) = time.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    let (seconds, micros): (u64, u64) = (seconds.parse().ok()?, micros.parse().ok()?);
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(micros * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(text: &str) -> Vec<Span> {
        let mut spans = Spans::default();
        text.lines().filter_map(|line| spans.line(line)).collect()
    }

    #[test]
    fn softirqs_become_spans() {
        let found = spans(
            "      st-pending-8604    [001] d..2.  2401.900000: softirq_raise: vec=3 [action=NET_RX]\n\
             \x20     st-pending-8604    [001] d..2.  2401.901000: softirq_raise: vec=3 [action=NET_RX]\n\
             \x20     st-pending-8604    [001] d..2.  2401.901000: softirq_raise: vec=9 [action=RCU]\n\
             \x20     st-pending-8604    [001] ..s1.  2401.902000: softirq_entry: vec=9 [action=RCU]\n\
             \x20     st-pending-8604    [001] ..s1.  2401.920000: softirq_entry: vec=3 [action=NET_RX]\n\
             \x20     st-pending-8604    [001] ..s1.  2401.927000: softirq_exit: vec=3 [action=NET_RX]\n",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].what, What::Pending(3));
        assert_eq!(found[0].to_ns - found[0].from_ns, 20_000_000);
        assert!(found[0].is_of(Injector::Pending, 8604));
        assert!(found[0].is_of(Injector::Ksoftirqd, 8604));
        assert_eq!(found[1].what, What::Handler(3));
        assert_eq!(found[1].to_ns - found[1].from_ns, 7_000_000);
        assert!(found[1].is_of(Injector::Handler, 1) && !found[1].is_of(Injector::Pending, 1));
    }

    #[test]
    fn waits_and_calls_become_spans() {
        let found = spans(
            "  a b-1-77    [001] d.s4.   1.000001: sched_wakeup: comm=ksoftirqd/1 pid=22 prio=120 target_cpu=001\n\
             \x20 x-77    [001] d..2.   1.020001: sched_switch: prev_comm=x prev_pid=77 prev_prio=98 prev_state=S ==> next_comm=ksoftirqd/1 next_pid=22 next_prio=120\n\
             \x20 st-irqs-off-78    [001] .....   2.000000: sys_enter: NR 62 (4e, 17, 0, 0, 0, 0)\n\
             \x20 st-irqs-off-78    [001] .....   2.010000: sys_exit: NR 62 = 0\n",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].is_of(Injector::Ksoftirqd, 77));
        assert_eq!(found[0].from_ns, 1_000_001_000);
        assert!(found[1].is_of(Injector::IrqsOff, 78) && !found[1].is_of(Injector::IrqsOff, 79));
    }

    #[test]
    fn a_preempted_task_waits_from_then_on() {
        let found = spans(
            "  ksoftirqd/1-22    [001] d..2.   1.000000: sched_switch: prev_comm=ksoftirqd/1 prev_pid=22 prev_prio=120 prev_state=R+ ==> next_comm=x next_pid=77 next_prio=98\n\
             \x20 x-77    [001] d..2.   1.007000: sched_switch: prev_comm=x prev_pid=77 prev_prio=98 prev_state=S ==> next_comm=ksoftirqd/1 next_pid=22 next_prio=120\n\
             \x20 ksoftirqd/1-22    [001] d..2.   1.007100: sched_switch: prev_comm=ksoftirqd/1 prev_pid=22 prev_prio=120 prev_state=S ==> next_comm=x next_pid=77 next_prio=98\n\
             \x20 x-77    [001] d..2.   1.020000: sched_switch: prev_comm=x prev_pid=77 prev_prio=98 prev_state=S ==> next_comm=ksoftirqd/1 next_pid=22 next_prio=120\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].is_of(Injector::Ksoftirqd, 77));
        assert_eq!(found[0].to_ns - found[0].from_ns, 7_000_000);
    }

    #[test]
    fn what_is_short_or_odd_gives_nothing() {
        assert!(
            spans(
                "x-1 [001] d 1.000000: softirq_entry: vec=3 [action=NET_RX]\n\
                 x-1 [001] d 1.002000: softirq_exit: vec=3 [action=NET_RX]\n\
                 CPU:1 [LOST 17 EVENTS]\n# tracer: nop\n\n\
                 x-1 [001] d 99999999999999999999.000000: softirq_exit: vec=3\n"
            )
            .is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_line_upsets_it(lines: Vec<String>) {
            let mut spans = Spans::default();
            for line in &lines {
                let _ = spans.line(line);
                let _ = spans.line(&format!("x-1 [001] d 1.000000: {line}"));
            }
        }
    }
}
