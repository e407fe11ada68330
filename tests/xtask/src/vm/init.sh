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

# A disk by its namespace's number. Since 6.12 the kernel scans namespaces at the same time: any of
# them may be nvme0n1, and one may come later than this script.
disk() { # NAME NUMBER: /dev/NAME
    for _ in $(seq 200); do
        for found in /sys/block/nvme*; do
            device=/dev/${found##*/}
            if [ "$(cat "$found/nsid" 2>/dev/null)" = "$2" ] && [ -b "$device" ]; then
                ln -s "$device" "/dev/$1"
                return
            fi
        done
        usleep 50000
    done
    echo "no disk for $1: $(grep . /sys/block/nvme*/nsid)"
}
disk back 1

# Others' tools: they look for their libraries where their loader looks.
if [ "$tools" = yes ]; then
    disk tools 2
    mkdir -p /tools /usr
    mount -t ext4 -o ro /dev/tools /tools
    for folder in lib lib64 usr/lib; do
        [ ! -d /tools/$folder ] || ln -s /tools/$folder /$folder
    done
    export PATH=$PATH:/tools/usr/bin:/tools/usr/sbin:/tools/sbin
fi

cd /t
timeout -s KILL "$limit" sh /vm/command
echo $? >/out/.status
tar -cf /dev/back -C /out . && sync
reboot -f
