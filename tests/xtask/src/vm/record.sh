# Records /proc, /sys, tracefs, debugfs and cgroup files of this machine below $out, as a root.
# Runs in a virtual machine (busybox) and, by `cargo xtask vm record host`, on a real host in a
# mount namespace of its own; there it touches nothing but cgroups, a tracefs instance and
# processes of its own, and removes them. tests/fixtures/README.md says what is where.
#
# Settings: out (a folder), host (yes or no), memory (the memory controller's mount point),
# layout (v1, v2 or hybrid), limit_events (event systems whose files are kept).
set -u
umask 022
tracing=/sys/kernel/tracing
pids=
holder=

# copy FILE...: keeps what can be read, under its own path.
copy() {
    for file; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        mkdir -p "$out${file%/*}"
        cat "$file" >"$out$file" 2>/dev/null || rm -f "$out$file"
    done
}

# put TEXT FILE: one write, as a person would make it; says so when the kernel refuses.
put() {
    (printf '%s\n' "$1" >>"$2") 2>/dev/null || echo "refused: $1 >> $2"
}

### trouble of our own, so that there is something to record

# make_cgroup PATH: below the memory controller's root (v1: and systemd's), with one process in it.
make_cgroup() {
    sleep 1000 </dev/null >/dev/null 2>&1 &
    pids="$pids $!"
    for path in $roots; do
        for part in $(echo "$1" | tr / ' '); do
            [ $layout != v2 ] || for controller in memory pids cpu; do
                echo +$controller >"$path/cgroup.subtree_control" 2>/dev/null
            done
            path=$path/$part
            mkdir -p "$path"
        done
        echo $! >"$path/cgroup.procs"
    done
}

# make_zombies PARENT COUNT: groups that are gone but still charged with a page of a file.
make_zombies() {
    for n in $(seq "$2"); do
        mkdir "$memory/$1/zombie$n"
        sh -c 'echo $$ >"$0/cgroup.procs"; head -c 4096 /dev/zero >"$1"' \
            "$memory/$1/zombie$n" "$kept/${1%%/*}$n"
        rmdir "$memory/$1/zombie$n"
    done
}

# clean: what was made goes again, on a host too if anything above failed.
clean() {
    exec 9>&-
    for pid in $holder $pids; do kill "$pid" 2>/dev/null; done
    wait
    for root in $roots; do
        echo $$ >"$root/cgroup.procs"
        for group in $groups; do
            while [ -n "$group" ]; do
                rmdir "$root/$group" 2>/dev/null
                group=${group%"${group##*/}"}
                group=${group%/}
            done
        done
    done
    [ $host = no ] || {
        for event in "$top"/events/*/*/trigger; do
            while read -r trigger; do
                case $trigger in '#'*) ;; *) put "!${trigger%% \[*}" "$event" ;; esac
            done <"$event"
        done
        rmdir "$top" $tracing/instances/alpha
        umount $kept && rmdir $kept
    }
}

container=3f6c1e0f3a6f4e7f9d0c5b8a7e6d5c4b3a2f1e0d9c8b7a6f5e4d3c2b1a0f9e8d
pod=kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9.slice
groups="system.slice/ssh.service system.slice/cron.service system.slice/docker-$container.scope
    $pod/cri-containerd-$container.scope user.slice/user-1000.slice/session-3.scope"

# What the groups are charged for, and the two programs that are probed and that probe.
kept=/run/stalltop-recording
roots=$memory
[ $layout = v2 ] || roots="$memory /sys/fs/cgroup/systemd"
mkdir -p $kept
mount -t tmpfs tmpfs $kept
cp "$busybox" $kept/busybox
trap clean EXIT
for group in $groups; do make_cgroup "$group"; done
for root in $roots; do echo $$ >"$root/system.slice/ssh.service/cgroup.procs"; done
make_zombies system.slice 10
make_zombies kubepods.slice 6

# Tracing: on a host an instance of our own, else the top level and an instance beside it.
top=$tracing/instances/stalltop-fixture
[ $host = yes ] || top=$tracing
mkdir -p "$top" $tracing/instances/alpha
put 1 "$top/events/irq/softirq_entry/enable"
put 1 "$top/events/irq/softirq_exit/enable"
put 'prev_pid > 1 && next_comm != "swapper/0"' "$top/events/sched/sched_switch/filter"
put 1 "$top/events/sched/sched_switch/enable"
put 'enable_event:irq:irq_handler_entry if prio > 1' "$top/events/sched/sched_wakeup_new/trigger"
put 'enable_event:irq:irq_handler_entry' "$top/events/sched/sched_process_fork/trigger"
put 'stacktrace:3 if prio < 50' "$top/events/sched/sched_process_exit/trigger"
put 1 "$top/events/sched/sched_process_exit/enable"
put 'hist:keys=vec:size=128' "$top/events/irq/softirq_raise/trigger"
put 2 "$top/set_event_pid"
put 'sched:sched_process_exec' $tracing/instances/alpha/set_event
put 0 $tracing/instances/alpha/tracing_on
echo nop >$tracing/instances/alpha/current_tracer

if [ $host = no ]; then
    put 'p:stall/opened do_sys_openat2 name=+0(%si):string' $tracing/kprobe_events
    put 'r4:stall/opened_ret do_sys_openat2 fd=$retval' $tracing/kprobe_events
    put 'p:stall/inside do_sys_openat2+5' $tracing/kprobe_events
    put 'p:stall/written vfs_write' $tracing/kprobe_events
    put 'p:stall/unused vfs_fsync_range' $tracing/kprobe_events
    insmod /t/dummy.ko
    put 'p:stall/module dummy:dummy_get_stats64' $tracing/kprobe_events
    # An instruction boundary of a busybox of our own: its entry point, from the ELF header.
    entry=$(od -An -tx4 -j24 -N4 $kept/busybox | tr -d ' ')
    start=$kept/busybox:0x$(printf %x $((0x$entry & 0x3fffff)))
    put "p:stallu/start $start" $tracing/uprobe_events
    put "r:stallu/start_ret $start" $tracing/uprobe_events
    put 's:slow_wakeup u64 lat; pid_t pid' $tracing/dynamic_events
    put 'e:stall/eopen syscalls.sys_enter_openat file=+0($filename):ustring' $tracing/dynamic_events
    put 'f:stall/fread vfs_read' $tracing/dynamic_events
    put 't:stall/tswitch sched_switch' $tracing/dynamic_events
    for event in stall/opened stall/opened_ret stall/inside stall/written stall/module stallu/start; do
        put 1 $tracing/events/$event/enable
    done
fi

# Somebody else's BPF tool, and an interrupt or two.
mkfifo "$kept/hold"
bpf-holder kprobe:do_sys_openat2 kretprobe:vfs_read kprobe_link:vfs_open kprobe_multi:vfs_write,vfs_read \
    tracepoint:sched:sched_process_exec tracepoint_link:irq:softirq_entry raw_tracepoint:sched_switch \
    tp_btf:sched_wakeup fentry:vfs_open perf_tracepoint:sched:sched_stat_runtime perf_event iter:task \
    "cgroup:$cgroup2" map:counts uprobe:$kept/busybox@0x1000 \
    <"$kept/hold" >"$kept/holder" &
holder=$!
exec 9>"$kept/hold"
until grep -q ^ready "$kept/holder"; do sleep 0.1; done
cat "$kept/holder"
ping -q -c 40 -i 0.02 127.0.0.1 >/dev/null 2>&1
for n in $(seq 40); do cat /etc/hostname >/dev/null 2>&1; done
[ $host = yes ] || $kept/busybox true
sleep 2

### what is kept

# The host's own processes are nobody's business: only our own and the kernel's threads.
for proc in /proc/[0-9]*; do
    read -r name <"$proc/comm" || continue
    case $name in
    ksoftirqd/* | bpf-holder) ;;
    *) continue ;;
    esac
    copy $proc/stat $proc/schedstat $proc/comm $proc/status $proc/cgroup
    [ ${proc#/proc/} != $holder ] || {
        copy $proc/cmdline $proc/fdinfo/*
        mkdir -p $out$proc/fd
        for fd in $proc/fd/*; do readlink -n $fd >$out$fd; done
    }
done

for file in softirqs stat interrupts net/softnet_stat pressure/cpu pressure/io pressure/memory \
    pressure/irq loadavg uptime schedstat cgroups meminfo timer_list self/mountinfo self/cgroup \
    filesystems sys/kernel/osrelease sys/kernel/ostype sys/kernel/kptr_restrict \
    sys/kernel/perf_event_paranoid sys/kernel/perf_event_max_stack sys/kernel/sched_schedstats \
    sys/kernel/unprivileged_bpf_disabled sys/kernel/bpf_stats_enabled sys/kernel/ftrace_enabled \
    sys/kernel/stack_tracer_enabled sys/kernel/pid_max sys/net/core/netdev_budget \
    sys/net/core/netdev_budget_usecs sys/net/core/netdev_max_backlog \
    sys/net/core/bpf_jit_enable sys/debug/kprobes-optimization; do
    copy /proc/$file
done
# Who built the host's kernel, and where, is left out.
mkdir -p $out/proc && sed 's/([^()]*@[^()]*)/(builder@host)/' /proc/version >$out/proc/version
[ $host = yes ] || copy /proc/cmdline

cpu=/sys/devices/system/cpu
copy $cpu/online $cpu/offline $cpu/possible $cpu/present $cpu/isolated $cpu/nohz_full $cpu/kernel_max \
    $cpu/smt/active $cpu/smt/control $cpu/cpu[0-9]*/online $cpu/cpu[0-9]*/topology/*_id $cpu/cpu[0-9]*/topology/*_list \
    $cpu/cpu[0-9]*/cache/index*/level $cpu/cpu[0-9]*/cache/index*/type $cpu/cpu[0-9]*/cache/index*/size \
    $cpu/cpu[0-9]*/cache/index*/id $cpu/cpu[0-9]*/cache/index*/shared_cpu_list \
    /sys/devices/system/node/online /sys/devices/system/node/possible \
    /sys/devices/system/node/node*/cpulist /sys/devices/system/clocksource/clocksource0/current_clocksource
copy /sys/kernel/security/lockdown /sys/kernel/security/lsm
copy /sys/kernel/debug/kprobes/list /sys/kernel/debug/kprobes/enabled /sys/kernel/debug/sched/preempt
copy /sys/bus/event_source/devices/[ku]probe/type /sys/bus/event_source/devices/[ku]probe/format/retprobe

# keep_tracing FROM TO: the state of one tracefs instance.
keep_tracing() {
    for file in available_tracers current_tracer tracing_on trace_clock set_event set_event_pid \
        set_event_notrace_pid buffer_size_kb buffer_total_size_kb tracing_cpumask \
        kprobe_events uprobe_events dynamic_events synthetic_events kprobe_profile uprobe_profile \
        set_ftrace_filter set_ftrace_pid events/enable; do
        [ -r "$1/$file" ] || continue
        mkdir -p "$out$2/$file" && rmdir "$out$2/$file"
        cat "$1/$file" >"$out$2/$file" 2>/dev/null || rm -f "$out$2/$file"
    done
    for stats in "$1"/per_cpu/cpu*/stats; do
        mkdir -p "$out$2${stats#"$1"}" && rmdir "$out$2${stats#"$1"}"
        cat "$stats" >"$out$2${stats#"$1"}"
    done
    for system in $limit_events; do
        for event in "$1/events/$system"/*; do
            [ -d "$event" ] || continue
            to=$out$2/events/$system/${event##*/}
            mkdir -p "$to"
            for file in enable filter trigger id; do
                [ ! -r "$event/$file" ] || cat "$event/$file" >"$to/$file" 2>/dev/null || rm -f "$to/$file"
            done
        done
        for file in enable filter; do
            [ ! -r "$1/events/$system/$file" ] || cat "$1/events/$system/$file" >"$out$2/events/$system/$file"
        done
    done
}
keep_tracing "$top" $tracing
if [ $host = no ]; then limit_events="irq stall"; else limit_events="irq"; fi
keep_tracing $tracing/instances/alpha $tracing/instances/alpha
for format in irq/softirq_entry irq/softirq_exit irq/softirq_raise irq/irq_handler_entry \
    irq/irq_handler_exit sched/sched_switch; do
    copy $tracing/events/$format/format
done
copy $tracing/README

# keep_group FROM TO: one cgroup's files.
keep_group() {
    mkdir -p "$out$2"
    for file in cgroup.procs cgroup.stat cgroup.events cgroup.controllers \
        cgroup.subtree_control memory.current memory.stat memory.max memory.peak \
        memory.events memory.pressure cpu.stat pids.current \
        memory.usage_in_bytes memory.limit_in_bytes memory.kmem.usage_in_bytes memory.use_hierarchy \
        memory.max_usage_in_bytes memory.failcnt; do
        [ ! -f "$1/$file" ] || cat "$1/$file" >"$out$2/$file" 2>/dev/null || rm -f "$out$2/$file"
    done
}
# A host's other groups are kept with numbers for names.
others=0
find $roots -type d | sort >"$kept/groups"
while read -r group; do
    to=$group
    root=$memory
    case $group in /sys/fs/cgroup/systemd*) [ $layout = v2 ] || root=/sys/fs/cgroup/systemd ;; esac
    case $host,${group#"$root"} in
    no,* | yes, | yes,/system.slice* | yes,/user.slice* | yes,/kubepods.slice*) ;;
    *)
        others=$((others + 1))
        to=$root/other-$others
        ;;
    esac
    keep_group "$group" "$to"
done <"$kept/groups"
[ $layout = v2 ] || for group in /sys/fs/cgroup/unified /sys/fs/cgroup/pids; do
    [ ! -d $group ] || keep_group $group $group
done

# The settings of the build that decide what can be seen. A host may have them in /proc.
wanted='^CONFIG_(HZ|HZ_[0-9]+|PREEMPT[A-Z_]*|NO_HZ[A-Z_]*|HIGH_RES_TIMERS|KPROBES[A-Z_]*|OPTPROBES|KPROBE_EVENTS|UPROBE_EVENTS|FPROBE[A-Z_]*|FTRACE|FUNCTION_TRACER|DYNAMIC_FTRACE[A-Z_]*|HIST_TRIGGERS|IRQSOFF_TRACER|BPF_SYSCALL|BPF_JIT|DEBUG_INFO_BTF|PSI[A-Z_]*|MEMCG[A-Z_0-9]*|SCHEDSTATS|SCHED_INFO|IRQ_TIME_ACCOUNTING|VIRT_CPU_ACCOUNTING_GEN|PARAVIRT_SPINLOCKS|LOCK_STAT|SECURITY_LOCKDOWN_LSM)=|^# CONFIG_(KPROBES|PREEMPT_RT|IRQSOFF_TRACER|PSI_DEFAULT_DISABLED|IRQ_TIME_ACCOUNTING|LOCK_STAT) is not set'
if [ -r /proc/config.gz ]; then
    zcat /proc/config.gz | grep -E "$wanted" | gzip -n9 >$out/proc/config.gz
else
    mkdir -p $out/boot && grep -E "$wanted" "/boot/config-$(uname -r)" >"$out/boot/config-$(uname -r)"
fi

# A module that goes while a probe is on it: kprobes/list says GONE. Kept apart.
[ $host = yes ] || {
    rmmod dummy
    cat /sys/kernel/debug/kprobes/list >$out/sys/kernel/debug/kprobes/list.module-gone
    echo 0 >/sys/kernel/debug/kprobes/enabled
    cat /sys/kernel/debug/kprobes/list >$out/sys/kernel/debug/kprobes/list.all-off
    echo 1 >/sys/kernel/debug/kprobes/enabled
}
