# vm: --cpus 3 --program stalltop --program host-load --limit 900s
# Incident I2 as its engineers met it. An agent reads memory statistics of all cgroups, on the
# CPU to which packet steering sends a flood: CPU 1. Many cgroups are gone but still charged with
# page cache that others use, so that each read has them all to walk. Then their caches are
# dropped.
. /t/lib.sh
zombies=${1:-10000}
before=${2:-30}
after=${3:-25}
all=$((before + after + 300))
hostname node-17
# host-load holds all files of the zombies open.
ulimit -n 20000

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    memory=/sys/fs/cgroup
    for group in jobs agents; do
        mkdir $memory/$group
        echo +memory >$memory/$group/cgroup.subtree_control
    done
else
    memory=/sys/fs/cgroup/memory
    mkdir $memory/jobs $memory/agents
fi

# Page cache of a disk can be dropped, that of tmpfs cannot. The disk takes /out in the end.
mke2fs -F /dev/back >/dev/null || fail mke2fs
mkdir /run/disk
mount -t ext4 -o noatime /dev/back /run/disk || fail mount
host-load zombies $memory/jobs $memory /run/disk/pages "$zombies" || fail zombies
sync

# Packets of the loopback device are handled on CPU 1, wherever they are sent.
echo 2 >/sys/class/net/lo/queues/rx-0/rps_cpus
host-load touch /run/disk/pages 0 200 $all >/out/touch 2>&1 &
touch=$!
host-load flood 0 30 40 $all >/out/flood 2>&1 &
flood=$!
mkdir $memory/agents/cadvisor.service
ln -s /t/host-load /run/cadvisor
sh -c "echo \$\$ >$memory/agents/cadvisor.service/cgroup.procs
    exec /run/cadvisor read $memory memory.stat 1 200 $all" >/out/read 2>&1 &
reader=$!
sleep 3

read -r typed rest </proc/uptime
echo "$typed" >/out/typed
stalltop record /out/i2.zst --for $((before + after))s --tick 1s >/out/record 2>&1 &
recorder=$!
sleep "$before"
stalltop drop-caches --yes >/out/drop 2>&1 </dev/null
echo "status $?" >>/out/drop
wait $recorder || fail "record: $(cat /out/record)"
kill $touch $flood $reader
wait
umount /run/disk
