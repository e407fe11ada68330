# vm: --cpus 4 --cpu max,-hypervisor --tools --memory 1024 --limit 300s
# vm: --program stalltop --program bpf-holder --program host-load
# Incident I1 in miniature. An agent's kretprobe on a hot function writes one hash from all CPUs,
# which wait for each other at the lock of its bucket; bpftrace has a probe beside it. Then all
# kernel probes are switched off, and on again.
#
# The kernel is not told that it is in a virtual machine: otherwise its spinlocks are others, of
# which no tracepoint tells.
. /t/lib.sh
tracing=/sys/kernel/tracing
hostname proxy-7

ln -s /t/bpf-holder /run/ebpf.plugin
mkfifo /run/hold
/run/ebpf.plugin kretprobe_hash:__x64_sys_getppid </run/hold >/out/held &
agent=$!
exec 9>/run/hold
until_true 20 grep -q ^ready /out/held
bpftrace -e 'kprobe:do_nanosleep { @sleeps[comm] = count(); }' >/out/bpftrace 2>&1 </dev/null &
bpftrace=$!
on_kprobe() { grep -q do_nanosleep /sys/kernel/debug/kprobes/list; }
until_true 120 on_kprobe
echo "$agent ebpf.plugin
$bpftrace bpftrace" >/out/holders

host-load calls 200 >/out/calls &
load=$!
until_true 20 test -s /out/calls

# measure NAME: what the kernel and the load count in a few seconds: waits that began, and calls.
measure() {
    mkdir $tracing/instances/i1
    lines=$(wc -l </out/calls)
    echo 1 >$tracing/instances/i1/events/lock/contention_begin/enable
    sleep 4
    echo 0 >$tracing/instances/i1/events/lock/contention_begin/enable
    awk '/^(entries|overrun):/ { sum += $2 } END { print sum + 0 }' \
        $tracing/instances/i1/per_cpu/cpu*/stats >/out/waits."$1"
    tail -n +$((lines + 1)) /out/calls | awk 'NR == 1 { t = $1; n = $2 }
        END { printf "%.0f\n", ($2 - n) / ($1 - t) }' >/out/calls."$1"
    rmdir $tracing/instances/i1
}

measure before
# perf takes the same waits apart by who called.
perf lock record -a -g -o /run/lock.data sleep 1 >/out/perf.log 2>&1
perf lock contention -i /run/lock.data >/out/perf.lock 2>>/out/perf.log
stalltop audit --json >/out/audit.json || fail audit
bpftool -j perf show >/out/bpftool.perf 2>/out/bpftool.errors

stalltop off kprobes --yes >/out/off 2>&1 </dev/null
echo "status $?" >>/out/off
cat /sys/kernel/debug/kprobes/enabled >/out/enabled.off
measure off
stalltop undo --yes >/out/undo 2>&1 </dev/null
echo "status $?" >>/out/undo
cat /sys/kernel/debug/kprobes/enabled >/out/enabled.undone
measure undone
kill $load $bpftrace
exec 9>&-
wait
