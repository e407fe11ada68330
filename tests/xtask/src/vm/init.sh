#!/bin/busybox sh
# The guest's /init: mounts what a host has mounted, runs /vm/command, hands back its status.
# ttyS0 is the kernel's console, ttyS1 the command's output, the NVMe disk takes what goes back.
/bin/busybox mkdir -p /dev /proc /sys /run /tmp /out /t /etc
/bin/busybox --install -s /bin
export PATH=/t:/bin HOME=/ TERM=dumb
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
stty -F /dev/ttyS1 raw 2>/dev/null
exec </dev/null >/dev/ttyS1 2>&1

. /vm/settings
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
hostname machine

# As systemd lays them out: v1 (legacy), hybrid (v1 controllers, v2 beside them), v2 (unified).
v1() {
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    for joined in cpu,cpuacct cpuset blkio memory devices freezer net_cls,net_prio perf_event hugetlb pids; do
        mkdir "/sys/fs/cgroup/$joined"
        mount -t cgroup -o "$joined" cgroup "/sys/fs/cgroup/$joined" 2>/dev/null ||
            rmdir "/sys/fs/cgroup/$joined"
    done
}
case $cgroup in
v1) v1 ;;
hybrid)
    v1
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    ;;
v2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done
    ;;
esac

# Others' tools: they look for their libraries where their loader looks.
if [ -e /dev/nvme0n2 ]; then
    mkdir -p /tools /usr
    mount -t ext4 -o ro /dev/nvme0n2 /tools
    for folder in lib lib64 usr/lib; do
        [ ! -d /tools/$folder ] || ln -s /tools/$folder /$folder
    done
    export PATH=$PATH:/tools/usr/bin:/tools/usr/sbin:/tools/sbin
fi

cd /t
timeout -s KILL "$limit" sh /vm/command
echo $? >/out/.status
tar -cf /dev/nvme0n1 -C /out . && sync
reboot -f
