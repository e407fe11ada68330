# vm: --tools --memory 1024 --program stalltop --program bpf-holder --limit 900s
# vm: --append lsm=lockdown,bpf
# Every way to attach a BPF program that the kernel has, by tools that we did not write and by
# bpf-holder; what stalltop lists is compared with what bpftool lists. Then kprobes/enabled: what
# runs on, and what does not.
. /t/lib.sh
groups=/sys/fs/cgroup
mkdir -p $groups/kinds $groups/legacy $groups/system.slice/agent.service

start() {
    name=$1
    shift
    "$@" >/out/"$name".log 2>&1 </dev/null &
    echo "$! $name" >>/out/holders
}
# Compiling takes bpftrace longest: meanwhile the others begin.
libc=/tools/lib/x86_64-linux-gnu/libc.so.6
start bpftrace bpftrace -e "kfunc:vfs_fsync_range { @a = count(); }
    kretfunc:vfs_fsync_range { @b = count(); }
    kprobe:vfs_t*, kprobe:vfs_s* { @c = count(); }
    uprobe:$libc:setjmp { @d = count(); }
    profile:hz:1 { @e = count(); }"
start vfsstat vfsstat 1000

# Where a program begins is an instruction that can be probed. Nobody runs this one: probed there
# for its return it would not survive.
cp /bin/busybox /t/never
entry=$(od -An -tx4 -j24 -N4 /bin/busybox | tr -d ' ')
at=/t/never@0x$(printf %x $((0x$entry & 0x3fffff)))

# As an agent is started by systemd.
mkfifo /run/hold
sh -c "echo \$\$ >$groups/system.slice/agent.service/cgroup.procs
    exec bpf-holder kprobe:do_sys_openat2 kprobe_link:vfs_read kretprobe:vfs_read \
    kprobe_tracefs:do_sys_openat2 kprobe_multi:vfs_read,vfs_write kretprobe_multi:vfs_read \
    kprobe_session:vfs_read fentry:vfs_read fexit:vfs_write fmod_ret:security_sb_statfs \
    lsm:file_open lsm_cgroup:$groups/kinds@socket_post_create struct_ops struct_ops_link freplace \
    tracepoint:sched:sched_process_hang tracepoint_link:sched:sched_process_hang \
    raw_tracepoint:sched_process_hang tp_btf:sched_process_hang iter:task perf_event \
    uprobe:$at uretprobe:$at uprobe_multi:$at uprobe_session:$at \
    cgroup:$groups/kinds cgroup_device:$groups/kinds cgroup_sysctl:$groups/kinds \
    cgroup_sockopt:$groups/kinds cgroup_legacy:$groups/legacy tcx:lo netkit:kit netfilter sk_lookup \
    flow_dissector sk_skb sk_msg sk_msg_link sk_reuseport socket_filter lwt_xmit:lo syscall" \
    </run/hold >/out/held &
holder=$!
exec 9>/run/hold
echo "$holder bpf-holder" >>/out/holders
until_true 60 grep -q ^ready /out/held

# Who made it is gone, its link is pinned.
bpf-holder tp_btf:sched_process_exec pin:/sys/fs/bpf/left </dev/null >/out/left || fail left
# A name that would do something to a terminal, of a process and of a pin.
escape=$(printf 'bad\033[31m')
ln -s /t/bpf-holder "/run/$escape"
"/run/$escape" raw_tracepoint:sched_process_wait "pin:/sys/fs/bpf/$escape" </run/hold >/out/escape 9>&- &
until_true 60 grep -q ^ready /out/escape
# bpftool attaches, and ends.
bpf-holder loaded_xdp pin:/sys/fs/bpf/loaded </dev/null >/out/loaded || fail loaded
bpftool net attach xdpgeneric pinned /sys/fs/bpf/loaded dev lo || fail "bpftool net attach"
rm /sys/fs/bpf/loaded
runs() { bpftool -j prog show >/out/"$1" 2>/out/bpftool.errors || fail "bpftool: $(cat /out/bpftool.errors)"; }
# bpftrace attaches that last; the other one is bpf-holder's.
sampling() { [ "$(bpftool prog show 2>/dev/null | grep -c ': perf_event ')" -ge 2 ]; }
until_true 150 grep -q Attaching /out/bpftrace.log
until_true 60 sampling
sleep 2

runs bpftool.prog
for what in link perf cgroup net struct_ops; do
    case $what in
    cgroup) arguments=tree ;;
    *) arguments=show ;;
    esac
    bpftool -j $what $arguments >/out/bpftool.$what 2>>/out/bpftool.errors
done
# bpftool prints no JSON there: ["id":50].
sed -i 's/\["id":\([0-9]*\)\]/[{"id":\1}]/' /out/bpftool.net
stalltop audit --json >/out/audit.json || fail audit
stalltop audit >/out/audit
stalltop off kprobes --dry-run >/out/plan 2>&1

# Somebody who may not know.
echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >/etc/passwd
su nobody -s /bin/sh -c '/t/stalltop audit --json' >/out/audit.nobody.json
# A kernel that does not tell its types.
mount --bind /dev/null /sys/kernel/btf/vmlinux
stalltop audit --json >/out/audit.nobtf.json || fail "audit without BTF"
umount /sys/kernel/btf/vmlinux

echo 1 >/proc/sys/kernel/bpf_stats_enabled
stalltop off kprobes --yes >/out/off 2>&1 || fail off
runs runs.before
for n in 1 2 3; do cat /etc/mtab >/run/mtab 2>/dev/null; done
cat /proc/version >/run/version
runs runs.after
stalltop undo --yes >/out/undo 2>&1 || fail undo
# All that still runs ends with the machine.
