# vm: --program stalltop --program bpf-holder --limit 900s
# A stream of samples while there is network load, zombies and somebody else's BPF tool.
. /t/lib.sh

hold kprobe:do_sys_openat2 kretprobe:vfs_read tracepoint:sched:sched_process_exec \
    raw_tracepoint:sched_process_fork
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    memory=/sys/fs/cgroup
    mkdir $memory/stalltop
    echo +memory >$memory/stalltop/cgroup.subtree_control
else
    memory=/sys/fs/cgroup/memory
fi
make_zombies $memory/stalltop 20

# The marks say which samples lie between which readings of /proc/softirqs: the first sample that
# comes after a reading may have been measured before it, the second was not.
stalltop stream --for 280s --tick 500ms >/out/stream.jsonl &
stream=$!
until_true 30 grep -q '"source":"bpf"' /out/stream.jsonl
samples() { grep -c '^{"type":"sample"' /out/stream.jsonl; }
sampled() { [ "$(samples)" -ge "$1" ]; }
mark() {
    number=$(($(samples) + 2))
    until_true 30 sampled $number
    echo "$1 $number" >>/out/marks
}
cat /proc/softirqs >/out/softirqs.0
mark before
cat /proc/softirqs >/out/softirqs.1
ping -q -c 400 -i 0.001 127.0.0.1 >/dev/null
cat /proc/softirqs >/out/softirqs.2
mark after
cat /proc/softirqs >/out/softirqs.3
# What is read in the background, or paid for out of a budget that an emulated machine overdraws,
# comes when it comes.
complete() {
    tail -n 1 /out/stream.jsonl >/run/last
    grep -qE '"mount":"[^"]*","zombies":[0-9]' /run/last &&
        ! grep -qF '"drops":{"off":{"reason":"starting"' /run/last
}
until_true 40 complete
kill -INT $stream
wait $stream || fail "stalltop stream ended with $?"

stalltop doctor --json >/out/doctor.json || fail doctor

cat /proc/cgroups >/out/cgroups
find $memory -type d | wc -l >/out/visible
cat $memory/cgroup.stat >/out/cgroup.stat 2>/dev/null
echo $holder >/out/holder
exec 9>&-
wait $holder
