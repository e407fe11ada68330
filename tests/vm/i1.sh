# vm: --cpus 4 --cpu max,-hypervisor --tools --memory 1024 --limit 900s
# vm: --program stalltop --program bpf-holder --program host-load
# Incident I1 in miniature. An agent's kretprobe on a hot function writes one hash from all CPUs,
# which wait for each other at the lock of its bucket. Then all kernel probes are switched off, and
# on again; stalltop records it all. In the end perf and stalltop count the same waits.
#
# The kernel is not told that it is in a virtual machine: otherwise its spinlocks are others, of
# which no tracepoint tells.
. /t/lib.sh
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
bpftool -j perf show >/out/bpftool.perf 2>/out/bpftool.errors
stalltop audit --json >/out/audit.json || fail audit

host-load calls 200 >/out/calls &
load=$!
until_true 20 test -s /out/calls
# Looking 1,000 times a second who holds a CPU takes much of an emulated one.
stalltop record /out/i1.zst --locks always --sample off --stall 1s --tick 1s --for 280s \
    >/out/record 2>&1 &
recorder=$!
sleep 16
off_and_on 13
sleep 12
kill $recorder $load $bpftrace
wait $recorder || fail "record: $(cat /out/record)"

# One burst, which begins and ends while both watch; before it stalltop finds out what stacks take
# here.
stalltop record /run/burst.zst --locks always --sample off --stall 1s --tick 1s --for 280s \
    >/out/burst.record 2>&1 &
recorder=$!
sleep 4
host-load calls 8 >/out/calls.warm
# Nobody waits in between: the window in which that ends is not the burst's, and the one in which the
# burst ends is written, late ticks or not.
sleep 5
date +%s >/out/burst.at
# perf's own clock stands still from tick to tick where the TSC is unstable and interrupts are off:
# no wait would be longer than 4 ms.
perf lock record -a -m 4096 -k CLOCK_MONOTONIC -o /run/lock.data host-load calls 1 \
    >/out/perf.log 2>&1
sleep 5
kill $recorder
wait $recorder || fail "record: $(cat /out/burst.record)"
cp /run/burst.zst /out/
perf lock contention -i /run/lock.data >/out/perf.lock 2>&1
exec 9>&-
wait
