//! Everything a person can do: one table for dispatch, footer, help, palette, rebinding,
//! and the key table of the README.

/// Where a key works. Contexts are stacked, the topmost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Whatever is open.
    Everywhere,
    /// No dialog is open.
    Pane,
    /// Pane 1.
    Overview,
    /// Pane 2.
    Cores,
    /// The details of one CPU or group.
    CoreDetail,
    /// The heat map of one CPU.
    Heat,
    /// Pane 3.
    Stalls,
    /// The details of one stall.
    StallDetail,
    /// Pane 4.
    Locks,
    /// The details of a lock, stack, waiter or CPU that waits.
    LockDetail,
    /// Pane 5.
    Tracing,
    /// The list of changes.
    Journal,
    /// Pane 6.
    Cgroups,
    /// Any dialog or text field.
    Dialog,
    /// A dialog that asks whether to write.
    Confirm,
}

impl Context {
    /// How help names it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Everywhere => "Everywhere",
            Self::Pane => "Panes",
            Self::Overview => "Overview",
            Self::Cores => "Cores",
            Self::CoreDetail => "One CPU",
            Self::Heat => "Heat map",
            Self::Stalls => "Stalls",
            Self::StallDetail => "One stall",
            Self::Locks => "Locks",
            Self::LockDetail => "Who waits",
            Self::Tracing => "Tracing",
            Self::Journal => "Changes",
            Self::Cgroups => "Cgroups",
            Self::Dialog => "Dialogs",
            Self::Confirm => "Before a change",
        }
    }
}

/// What an action cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A host that may be written to: not a replay, not `--read-only`.
    Writer,
    /// A recording that is being replayed.
    Replay,
}

/// What an action may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Danger {
    /// Nothing outside the screen.
    None,
    /// Plans a write to the kernel, shows it, and asks first.
    Asks,
}

/// One row of [`ACTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Which.
    pub id: ActionId,
    /// Its name in the palette and in key files.
    pub name: &'static str,
    /// One line for help.
    pub doc: &'static str,
    /// One or two words for the footer; empty for actions that the footer leaves out.
    pub short: &'static str,
    /// The keys, as [`crate::Key`] reads them.
    pub keys: &'static [&'static str],
    /// Where they work.
    pub contexts: &'static [Context],
    /// What it needs.
    pub needs: Needs,
    /// What it may lead to.
    pub danger: Danger,
}

macro_rules! actions {
    ($($id:ident $name:literal $keys:tt in $contexts:tt $(needs $needs:ident)? $(danger $danger:ident)?
       : $short:literal, $doc:literal;)*) => {
        /// Everything a person can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ActionId {
            $(#[doc = $doc] $id,)*
        }

        /// One row per action.
        pub const ACTIONS: &[Action] = &[
            $(Action {
                id: ActionId::$id,
                name: $name,
                doc: $doc,
                short: $short,
                keys: &$keys,
                contexts: actions!(@contexts $contexts),
                needs: actions!(@needs $($needs)?),
                danger: actions!(@danger $($danger)?),
            },)*
        ];
    };
    (@contexts [$($context:ident)*]) => { &[$(Context::$context),*] };
    (@needs) => { Needs::Nothing };
    (@needs $needs:ident) => { Needs::$needs };
    (@danger) => { Danger::None };
    (@danger $danger:ident) => { Danger::$danger };
}

actions! {
    // What works in one place only comes first: the footer keeps this order.
    Confirm "confirm" ["enter"] in [Confirm]: "do it", "Carry out the change that is shown";
    Close "close" ["esc"] in [Dialog CoreDetail Heat StallDetail LockDetail Journal Pane]: "close", "Close the topmost thing: dialog, details, filter; at last go back from the past to live";

    Switch "switch" ["space", "x"] in [Tracing] needs Writer danger Asks: "off/on", "Switch the selected event, system, instance or probe off, or back on";
    SwitchSystem "switch-system" ["X"] in [Tracing] needs Writer danger Asks: "system", "Switch the selected event's whole subsystem off, or back on";
    ClearSetEvent "clear-set-event" ["E"] in [Tracing Overview] needs Writer danger Asks: "clear events", "Switch off every event, in the instances where any is on (set_event)";
    KprobesMaster "kprobes" ["K"] in [Tracing Overview] needs Writer danger Asks: "kprobes", "Switch all kprobes of this host off, or back on (kprobes/enabled)";
    TracingOn "tracing-on" ["W"] in [Tracing] needs Writer danger Asks: "", "Stop or resume recording into the selected instance's buffer (tracing_on)";
    Tracer "current-tracer" ["C"] in [Tracing] needs Writer danger Asks: "", "Set the selected instance's current_tracer to nop, or back";
    Remove "remove" ["D"] in [Tracing] needs Writer danger Asks: "", "Remove the selected dynamic event; undo re-creates it";
    StopHolder "stop-holder" ["T"] in [Tracing] needs Writer danger Asks: "stop holder", "Stop the process that holds the selected probe: TERM, then KILL; asks for a word, cannot be undone";
    GroupStalls "group-stalls" ["v"] in [Stalls]: "group", "Group stalls: not at all, by culprit, function, CPU, kind";
    LikeThis "like-this" ["f"] in [Stalls StallDetail]: "like this", "Show only the stalls of this culprit and function; again: all";
    ShowOurs "ours" ["o"] in [Tracing Stalls]: "ours", "Show or hide what is stalltop's own: its probes, the stalls that it caused";
    ShowPaused "paused-cpus" ["O"] in [Stalls]: "", "Show or hide stalls in which the hypervisor paused a virtual CPU";
    ShowCore "core" ["c"] in [Stalls StallDetail]: "core", "Open the details of the CPU on which it was";
    StackOrder "stack-order" ["v"] in [StallDetail]: "turn stacks", "Show stacks from the outermost function on, or from the innermost";
    GroupLocks "group-locks" ["v"] in [Locks]: "group", "Show waits by lock, call stack, waiting process, CPU";
    LockSamples "lock-samples" ["o"] in [Locks]: "waits/samples", "Show waits, or the samples taken in lock slow paths";
    FlameTree "flame-tree" ["v"] in [LockDetail]: "flame/tree", "Show the merged stacks as a flame graph, or as an indented tree";
    Zoom "zoom" ["enter"] in [LockDetail]: "zoom", "Give the selected function the whole width (Esc: back); arrows go to its caller, what it calls, and its neighbours";
    ShowKprobes "kprobes-list" ["v"] in [Tracing]: "", "Show or hide the kernel's list of kprobes";
    DropCaches "drop-caches" ["d"] in [Cgroups Overview] needs Writer danger Asks: "drop caches", "Drop caches with the value that fits this kernel, and report before and after";
    ReadNow "read-now" ["r"] in [Cgroups]: "read now", "Read the selected cgroup's memory.stat now, on its own thread";
    Flat "flat" ["v"] in [Cgroups]: "tree/flat", "Show cgroups as a tree, or as one flat sorted list";
    Group "group" ["v"] in [Cores]: "group", "Group CPUs: by what fits, not at all, core, cache, NUMA node";
    NextVector "vector" ["v"] in [CoreDetail]: "vector", "Show the next vector's histograms";
    HeatMap "heat" ["m"] in [CoreDetail Heat]: "heat map", "Show when this CPU stalled as a heat map, or go back";
    Mark "mark" ["enter", "space"] in [Heat]: "mark time", "Begin the marked time here, or end it: all panes then show that time only";
    CoreStalls "core-stalls" ["enter"] in [CoreDetail]: "its stalls", "List the stalls of this CPU";

    Open "open" ["enter"] in [Overview Cores Stalls Locks Tracing Cgroups Journal]: "open", "Open the details of the selected thing, or fold it";
    Filter "filter" ["/"] in [Overview Cores Stalls Locks Tracing Cgroups]: "filter", "Show only what matches";
    NextMatch "next-match" ["n"] in [Overview Cores Stalls Locks Tracing Cgroups]: "", "Go to the next match";
    PreviousMatch "previous-match" ["N"] in [Overview Cores Stalls Locks Tracing Cgroups]: "", "Go to the match before";
    Sort "sort" ["s"] in [Cores Stalls Locks Tracing Cgroups]: "sort", "Sort by the next column";
    Reverse "reverse" ["S"] in [Cores Stalls Locks Tracing Cgroups]: "", "Turn the order round";
    Undo "undo" ["u"] in [Pane] needs Writer danger Asks: "undo", "Undo the last change that is not undone (in the list of changes: the selected one)";
    Changes "changes" ["J"] in [Overview Cores Stalls Locks Tracing Cgroups]: "", "List every change that stalltop made on this host since boot";
    Pause "pause" ["space", "p"] in [Pane]: "pause", "Hold the screen still; measuring goes on";
    Back "back" ["["] in [Pane]: "back in time", "One tick back in history";
    Forward "forward" ["]"] in [Pane]: "", "One tick forward in history";
    BackMore "back-more" ["{"] in [Pane]: "", "Ten ticks back in history";
    ForwardMore "forward-more" ["}"] in [Pane]: "", "Ten ticks forward in history; past the newest goes on live";
    Slower "slower" ["-"] in [Pane] needs Replay: "", "Replay at half the speed";
    Faster "faster" ["+", "="] in [Pane] needs Replay: "speed", "Replay at twice the speed";
    Snapshot "snapshot" ["y"] in [Pane]: "snapshot", "Write what is shown as text, for a ticket; of locks a flame graph, too (SVG and folded stacks)";
    Palette "palette" [":"] in [Pane]: "command", "Find any command by its name";
    Help "help" ["?", "f1"] in [Pane]: "help", "Explain the keys that work here, and the marks";
    Theme "theme" ["t"] in [Pane]: "", "Next theme";

    Up "up" ["up", "k"] in [Pane]: "", "One row up";
    Down "down" ["down", "j"] in [Pane]: "", "One row down";
    PageUp "page-up" ["pgup", "ctrl-b"] in [Pane]: "", "One page up";
    PageDown "page-down" ["pgdn", "ctrl-f"] in [Pane]: "", "One page down";
    Top "top" ["home", "g"] in [Pane]: "", "First row";
    Bottom "bottom" ["end", "G"] in [Pane]: "", "Last row";
    Fold "fold" ["left", "h"] in [Pane]: "", "Fold the selected row, or go to its parent";
    Unfold "unfold" ["right", "l"] in [Pane]: "", "Unfold the selected row, or open it";
    FoldAll "fold-all" ["z"] in [Cores Stalls Tracing Cgroups]: "", "Fold or unfold everything";

    Overview "overview" ["1"] in [Pane]: "", "Pane 1: findings, the worst cores, what traces";
    Cores "cores" ["2"] in [Pane]: "", "Pane 2: softirqs and ksoftirqd, CPU by CPU";
    Stalls "stalls" ["3"] in [Pane]: "", "Pane 3: who held a CPU, for how long, and in which function";
    Locks "locks" ["4"] in [Pane]: "", "Pane 4: what waits for the kernel's locks, for how long, and in which functions";
    Tracing "tracing" ["5"] in [Pane]: "", "Pane 5: what traces this host, and for whom";
    Cgroups "cgroups" ["6"] in [Pane]: "", "Pane 6: memory cgroups, zombies, and what reading them costs";
    NextPane "next-pane" ["tab"] in [Pane]: "", "Next pane";
    PreviousPane "previous-pane" ["backtab"] in [Pane]: "", "Pane before";
    Redraw "redraw" ["ctrl-l"] in [Everywhere]: "", "Draw the screen anew";
    Quit "quit" ["q"] in [Pane]: "quit", "Quit; in details and dialogs: close them";
    QuitNow "quit-now" ["ctrl-c"] in [Everywhere]: "", "Quit, whatever is open";
}

impl ActionId {
    /// Its row.
    pub fn action(self) -> &'static Action {
        // The macro writes the enum and the table in the same order.
        &ACTIONS[self as usize]
    }

    /// The action called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        ACTIONS.iter().find(|a| a.name == name).map(|a| a.id)
    }
}

/// The contexts whose keys work together, topmost first: what help and tests go through.
pub(crate) const STACKS: &[&[Context]] = &[
    &[Context::Overview, Context::Pane, Context::Everywhere],
    &[Context::Cores, Context::Pane, Context::Everywhere],
    &[Context::CoreDetail, Context::Pane, Context::Everywhere],
    &[Context::Heat, Context::Pane, Context::Everywhere],
    &[Context::Stalls, Context::Pane, Context::Everywhere],
    &[Context::StallDetail, Context::Pane, Context::Everywhere],
    &[Context::Locks, Context::Pane, Context::Everywhere],
    &[Context::LockDetail, Context::Pane, Context::Everywhere],
    &[Context::Tracing, Context::Pane, Context::Everywhere],
    &[Context::Journal, Context::Pane, Context::Everywhere],
    &[Context::Cgroups, Context::Pane, Context::Everywhere],
    &[Context::Dialog, Context::Everywhere],
    &[Context::Confirm, Context::Dialog, Context::Everywhere],
];

/// The README's key table, in Markdown.
pub fn key_table() -> String {
    use std::fmt::Write as _;
    let mut out = String::from("| Keys | Where | What |\n|---|---|---|\n");
    for action in ACTIONS {
        let keys: Vec<String> = action
            .keys
            .iter()
            .map(|k| match k.parse::<crate::Key>() {
                Ok(key) => format!("`{key}`"),
                Err(_) => format!("`{k}`"),
            })
            .collect();
        let places: Vec<&str> = action.contexts.iter().map(|c| c.title()).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            keys.join(" "),
            places.join(", "),
            action.doc
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_documented_and_named_once() {
        for (i, action) in ACTIONS.iter().enumerate() {
            assert_eq!(action.id as usize, i);
            assert!(action.doc.len() > 3, "{}", action.name);
            assert!(!action.doc.ends_with('.'), "{}", action.name);
            assert!(!action.contexts.is_empty(), "{}", action.name);
            assert!(!action.keys.is_empty(), "{}", action.name);
            assert_eq!(ActionId::from_name(action.name), Some(action.id));
            assert!(
                action.danger == Danger::None || action.needs == Needs::Writer,
                "{}: what writes needs a writer",
                action.name
            );
        }
    }

    #[test]
    fn the_key_table_is_complete() {
        let table = key_table();
        assert_eq!(table.lines().count(), ACTIONS.len() + 2);
        assert!(table.contains("| `q` | Panes | Quit; in details and dialogs: close them |"));
    }
}
