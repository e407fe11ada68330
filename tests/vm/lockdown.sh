# vm: --append lockdown=integrity --program stalltop --program bpf-holder --limit 900s
# What lockdown=integrity refuses is said, and what it leaves still works.
. /t/lib.sh
tracing=/sys/kernel/tracing
grep -qF '[integrity]' /sys/kernel/security/lockdown || fail "no lockdown"

hold kprobe:vfs_read
echo 'p:opened do_sys_openat2' >$tracing/kprobe_events
echo 1 >$tracing/events/kprobes/opened/enable
stalltop audit --json >/out/audit.json || fail audit
stalltop doctor --json >/out/doctor.json || fail doctor

stalltop off --yes kprobes >/out/refused 2>&1
echo $? >/out/refused.status
stalltop off --yes kprobes:opened || fail off
[ "$(cat $tracing/events/kprobes/opened/enable)" = 0 ] || fail "not off"
stalltop undo --yes || fail undo
[ "$(cat $tracing/events/kprobes/opened/enable)" = 1 ] || fail "not on"

exec 9>&-
wait $holder
