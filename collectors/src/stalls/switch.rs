//! Starting and stopping the sampler on a thread of its own.
//!
//! The kernel opens, enables and closes a CPU's event on that CPU, and who asks from elsewhere spins
//! until it has (`smp_call_function_single`, kernel/smp.c): as long as interrupts are off there, which
//! is what is looked for. So `stalltop-sampler` goes to that CPU first, and waits for it like any other
//! task; whoever empties the ring buffer waits for nothing. Where a task keeps the CPU for itself
//! the thread is called back after [`PATIENCE`] and asks from elsewhere: that task has interrupts
//! on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use stalltop_probes::Sampler;

use super::sampling::{Switch, Switched};
use super::thread::NICE;
use crate::shared::Shared;

/// How long the thread waits for a CPU that it has gone to.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked whether what was started still samples.
const LOOK: Duration = Duration::from_secs(1);

/// What runs on which CPU; behind it the thread that sees to it.
pub(super) struct Switcher {
    shared: Arc<Shared<State>>,
}

#[derive(Default)]
struct State {
    /// CPUs to be sampled, and to be sampled no longer, in this order.
    asked: VecDeque<(u32, bool)>,
    /// What became of it, of those CPUs that were asked for.
    cpus: Vec<(u32, Switched)>,
    /// The thread, where it may run, and since when it is at work at one CPU.
    thread: Option<(Pid, CpuSet)>,
    since: Option<Instant>,
    stop: bool,
}

impl State {
    fn set(&mut self, cpu: u32, to: Switched) {
        match self.cpus.iter_mut().find(|(known, _)| *known == cpu) {
            Some((_, state)) => *state = to,
            None => self.cpus.push((cpu, to)),
        }
    }

    fn get(&self, cpu: u32) -> Switched {
        let found = self.cpus.iter().find(|(known, _)| *known == cpu);
        found.map_or(Switched::Off, |(_, state)| *state)
    }
}

/// What starts and stops events: waits for their CPUs.
pub(super) trait Events: Send + 'static {
    /// Samples a CPU; false where that cannot be.
    fn start(&mut self, cpu: u32) -> bool;
    /// Samples it no longer.
    fn stop(&mut self, cpu: u32);
    /// Whether it was started and does not sample, because the CPU was offline in between.
    fn has_stopped(&mut self, cpu: u32) -> bool;
}

impl Events for Sampler {
    fn start(&mut self, cpu: u32) -> bool {
        Self::start(self, cpu).is_ok()
    }

    fn stop(&mut self, cpu: u32) {
        Self::stop(self, cpu);
    }

    fn has_stopped(&mut self, cpu: u32) -> bool {
        Self::has_stopped(self, cpu)
    }
}

impl Switcher {
    /// Starts the thread; `done` is called there whenever something has become of what was asked.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub(super) fn start(
        events: impl Events,
        done: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::<State>::default());
        let theirs = Arc::clone(&shared);
        // The name shows in stalls that are ours.
        thread::Builder::new()
            .name("stalltop-sampler".into())
            .spawn(move || run(&theirs, events, &done))?;
        Ok(Self { shared })
    }

    fn ask(&self, cpu: u32, on: bool) {
        self.shared.tell(|state| {
            state.asked.push_back((cpu, on));
            state.set(
                cpu,
                if on {
                    Switched::Starting
                } else {
                    Switched::Off
                },
            );
        });
    }
}

impl Switch for Switcher {
    fn start(&mut self, cpu: u32) {
        self.ask(cpu, true);
    }

    fn stop(&mut self, cpu: u32) {
        self.ask(cpu, false);
    }

    fn state(&mut self, cpu: u32) -> Switched {
        let mut state = self.shared.lock();
        if let Some((thread, all)) = state.thread
            && state.since.is_some_and(|since| since.elapsed() > PATIENCE)
        {
            // It cannot be in vain more often than once: the thread is elsewhere then.
            state.since = None;
            let _ = sched_setaffinity(Some(thread), &all);
        }
        state.get(cpu)
    }
}

impl Drop for Switcher {
    /// Does not wait: events end with the thread, or with the process.
    fn drop(&mut self) {
        self.shared.tell(|state| state.stop = true);
    }
}

fn run(shared: &Shared<State>, mut events: impl Events, done: &dyn Fn()) {
    // Refused without CAP_SYS_NICE: then it waits its turn like any other.
    let _ = setpriority_process(None, NICE);
    let all = sched_getaffinity(None).ok();
    shared.lock().thread = all.map(|all| (gettid(), all));
    loop {
        let (cpu, on) = {
            let mut state = shared.wait_while(LOOK, |state| {
                let samples = state.cpus.iter().any(|(_, to)| *to == Switched::On);
                // Nothing to look after: sleep until something is asked.
                !state.stop && state.asked.is_empty() && samples
            });
            while !state.stop && state.asked.is_empty() {
                let samples = state.cpus.iter().any(|(_, to)| *to == Switched::On);
                if samples {
                    break;
                }
                state = shared.wait(state, None);
            }
            if state.stop {
                return;
            }
            let Some(next) = state.asked.pop_front() else {
                for (cpu, to) in &mut state.cpus {
                    if *to == Switched::On && events.has_stopped(*cpu) {
                        *to = Switched::Stopped;
                    }
                }
                continue;
            };
            state.since = Some(Instant::now());
            next
        };
        go_to(cpu);
        let started = if on {
            events.start(cpu)
        } else {
            events.stop(cpu);
            false
        };
        let mut state = shared.lock();
        state.since = None;
        // Where it was asked for something else meanwhile, that counts.
        if on && state.get(cpu) == Switched::Starting {
            let to = if started {
                Switched::On
            } else {
                Switched::Failed
            };
            state.set(cpu, to);
        }
        drop(state);
        if let Some(all) = &all {
            let _ = sched_setaffinity(None, all);
        }
        done();
    }
}

/// Runs on that CPU alone, unless it is offline or a cpuset forbids it.
fn go_to(cpu: u32) {
    if (cpu as usize) < CpuSet::MAX_CPU {
        let mut set = CpuSet::new();
        set.set(cpu as usize);
        let _ = sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An event that is started when the test lets it be.
    struct Slow {
        log: Sender<(u32, bool)>,
        go: Receiver<bool>,
        gone: bool,
    }

    impl Events for Slow {
        fn start(&mut self, cpu: u32) -> bool {
            self.log.send((cpu, true)).unwrap();
            self.go.recv().unwrap()
        }

        fn stop(&mut self, cpu: u32) {
            self.log.send((cpu, false)).unwrap();
        }

        fn has_stopped(&mut self, _cpu: u32) -> bool {
            self.gone
        }
    }

    #[test]
    fn who_asks_does_not_wait_for_the_cpu() {
        let (log, logged) = channel();
        let (let_go, go) = channel();
        let (done, was_done) = channel();
        let slow = Slow {
            log,
            go,
            gone: true,
        };
        let mut switcher = Switcher::start(slow, move || done.send(()).unwrap()).unwrap();
        assert_eq!(switcher.state(0), Switched::Off);
        switcher.start(0);
        switcher.start(1);
        assert_eq!(logged.recv(), Ok((0, true)));
        // It is held up, and this thread is not.
        assert_eq!(switcher.state(0), Switched::Starting);
        let_go.send(true).unwrap();
        was_done.recv().unwrap();
        assert_eq!(switcher.state(0), Switched::On);
        assert_eq!(logged.recv(), Ok((1, true)));
        // Asked off before it is on.
        switcher.stop(1);
        let_go.send(true).unwrap();
        was_done.recv().unwrap();
        assert_eq!(switcher.state(1), Switched::Off);
        assert_eq!(logged.recv(), Ok((1, false)));
        switcher.start(2);
        assert_eq!(logged.recv(), Ok((2, true)));
        let_go.send(false).unwrap();
        was_done.recv().unwrap();
        was_done.recv().unwrap();
        assert_eq!(switcher.state(2), Switched::Failed);
        // What has stopped by itself is found within a second or two.
        let until = Instant::now() + Duration::from_secs(60);
        while switcher.state(0) != Switched::Stopped && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(switcher.state(0), Switched::Stopped);
    }
}
