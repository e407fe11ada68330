# vm: --program stalltop --limit 900s
# Kernel probes switched off and on again: their hits stop and come back, whatever is killed.
. /t/lib.sh
tracing=/sys/kernel/tracing
events=$tracing/events/kprobes

hits() { awk -v name="$1" '$1 == name { print $2 }' $tracing/kprobe_profile; }
work() { for n in $(seq 10); do cat /etc/mtab 2>/dev/null; done; }

# counts NAME, is_still NAME: whether work hits the probe.
counts() {
    before=$(hits "$1")
    work
    [ "$(hits "$1")" -ge $((before + 10)) ] || fail "$1 is not hit"
}
is_still() {
    before=$(hits "$1")
    work
    [ "$(hits "$1")" = "$before" ] || fail "$1 is hit"
}

echo 'p:opened do_sys_openat2 name=+0(%si):string' >$tracing/kprobe_events
echo 'r:opened_ret do_sys_openat2 fd=$retval' >>$tracing/kprobe_events
echo 'common_pid > 1' >$events/opened/filter
echo 1 >$events/opened/enable
echo 1 >$events/opened_ret/enable
counts opened
stalltop audit --json >/out/audit.json || fail audit

echo "## one event"
stalltop off --dry-run kprobes:opened || fail "off --dry-run"
counts opened
stalltop off --yes kprobes:opened || fail off
is_still opened
counts opened_ret
stalltop on --yes kprobes:opened || fail on
counts opened
[ "$(cat $events/opened/filter)" = 'common_pid > 1' ] || fail "the filter is gone"

echo "## all kprobes, through debugfs"
stalltop off --yes kprobes || fail off
[ "$(cat /sys/kernel/debug/kprobes/enabled)" = 0 ] || fail "not off"
stalltop audit --json >/out/audit.off.json || fail audit
is_still opened
is_still opened_ret
stalltop undo --yes || fail undo
[ "$(cat /sys/kernel/debug/kprobes/enabled)" = 1 ] || fail "not on"
counts opened
counts opened_ret

echo "## killed at any time"
for function in vfs_read vfs_write vfs_open vfs_fsync_range vfs_statfs vfs_unlink; do
    echo "p:$function $function" >>$tracing/kprobe_events
    echo 1 >$events/$function/enable
done
are_off() { cat $events/*/enable | grep -c '^0'; }
journal_has() { [ "$(cat /run/stalltop/journal | wc -c)" -gt "$1" ]; }
off_or_over() { [ "$(are_off)" -ge "$1" ] || ! kill -0 $victim 2>/dev/null; }
journalled_or_over() { journal_has "$1" || ! kill -0 $victim 2>/dev/null; }
undone=0
for point in journal 1 2 4 8; do
    size=$(cat /run/stalltop/journal | wc -c)
    stalltop off --yes 'kprobes:*' >/dev/null 2>&1 &
    victim=$!
    case $point in
    journal) until journalled_or_over "$size"; do :; done ;;
    *) until off_or_over "$point"; do :; done ;;
    esac
    kill -KILL $victim 2>/dev/null
    wait $victim 2>/dev/null
    left=$(are_off)
    stalltop undo --all --yes >/out/undo.$point 2>&1
    status=$?
    # 3: it was killed before it had begun.
    [ $status = 0 ] || [ $status = 3 ] || fail "undo after a kill at $point: $status: $(cat /out/undo.$point)"
    [ "$(are_off)" = 0 ] || fail "$(are_off) are off after a kill at $point: $(cat /out/undo.$point)"
    echo "killed at $point: $left of 8 were off, undo $status"
    [ $status != 0 ] || undone=$((undone + 1))
done
[ $undone -gt 0 ] || fail "each was killed before it had begun"
counts opened
counts opened_ret
for function in vfs_read vfs_write vfs_open vfs_fsync_range vfs_statfs vfs_unlink; do
    echo 0 >$events/$function/enable
    echo "-:$function" >>$tracing/kprobe_events
done

echo "## removed and made again"
cat $tracing/kprobe_events >/out/events.before
stalltop off --yes --remove kprobes:opened || fail "off --remove"
grep -q 'kprobes/opened ' $tracing/kprobe_events && fail "still there"
counts opened_ret
stalltop undo --yes || fail undo
[ "$(grep 'kprobes/opened ' $tracing/kprobe_events)" = "$(grep 'kprobes/opened ' /out/events.before)" ] ||
    fail "not the same: $(cat $tracing/kprobe_events)"
[ "$(cat $events/opened/enable)" = 1 ] || fail "not on again"
[ "$(cat $events/opened/filter)" = 'common_pid > 1' ] || fail "the filter is gone"
counts opened

echo "## a user probe"
entry=$(od -An -tx4 -j24 -N4 /bin/busybox | tr -d ' ')
echo "p:started /bin/busybox:0x$(printf %x $((0x$entry & 0x3fffff)))" >$tracing/uprobe_events
echo 1 >$tracing/events/uprobes/started/enable
stalltop off --yes uprobes:started || fail off
[ "$(cat $tracing/events/uprobes/started/enable)" = 0 ] || fail "not off"
stalltop on --yes uprobes:started || fail on
[ "$(cat $tracing/events/uprobes/started/enable)" = 1 ] || fail "not on"

stalltop undo --list >/out/journal
