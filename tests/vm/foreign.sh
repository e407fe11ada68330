# vm: --tools --memory 1024 --program stalltop --limit 900s
# Tools that we did not write trace this machine; what stalltop lists of them is compared with
# what bpftool lists.
. /t/lib.sh

# start NAME COMMAND...: in the background, until the test ends.
started=
start() {
    name=$1
    shift
    "$@" >/out/"$name".log 2>&1 </dev/null &
    started="$started $!"
    echo "$! $name" >>/out/holders
}
on_kprobe() { grep -q "$1" /sys/kernel/debug/kprobes/list; }

# bpftrace compiles its programs with LLVM.
start bpftrace bpftrace -e 'kprobe:do_nanosleep { @[comm] = count(); }
    kretprobe:vfs_read { @r = count(); }
    tracepoint:sched:sched_process_exec { @e = count(); }'
start perf perf record -q -e sched:sched_switch -a -o /run/perf.data
start opensnoop opensnoop
until_true 120 on_kprobe do_nanosleep
until_true 60 test -s /run/perf.data
# Each of their programs is at its place by then, and there are opensnoop's.
loaded() { bpftool -j prog show 2>/dev/null | grep -q sys_enter_openat; }
count() { bpftool -j $1 show 2>/dev/null | grep -o "\"$2\":" | wc -l; }
attached() { loaded && [ "$(count perf prog_id)" -ge "$(count prog id)" ]; }
until_true 60 attached

bpftool -j prog show >/out/bpftool.prog 2>/out/bpftool.errors || fail "bpftool: $(cat /out/bpftool.errors)"
bpftool -j perf show >/out/bpftool.perf 2>>/out/bpftool.errors
cp /sys/kernel/debug/kprobes/list /out/kprobes.list
stalltop audit --json >/out/audit.json || fail audit
stalltop audit >/out/audit
kill $started
wait
