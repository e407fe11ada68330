# vm: --program stalltop --program bpf-holder --limit 900s
# The changing commands as a person uses them: somebody else's probes, zombies, lockdown.
. /t/lib.sh

# say NAME COMMAND...: what it prints and its status.
say() {
    name=$1
    shift
    "$@" >/out/"$name" 2>&1 </dev/null
    echo "status $?" >>/out/"$name"
}

hold kprobe:do_sys_openat2
say held stalltop off kprobes:do_sys_openat2 --yes
say master stalltop off kprobes --yes
cat /sys/kernel/debug/kprobes/enabled >/out/enabled 2>&1
say undo stalltop undo --yes
cat /sys/kernel/debug/kprobes/enabled >/out/enabled.undone 2>&1

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    memory=/sys/fs/cgroup
    mkdir $memory/gone
    echo +memory >$memory/gone/cgroup.subtree_control
else
    memory=/sys/fs/cgroup/memory
fi
make_zombies $memory/gone 200
say drop stalltop drop-caches --yes
cp /run/stalltop/journal /out/journal
say list stalltop undo --list
