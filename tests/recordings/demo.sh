#!/bin/sh
# demo.sh STALLTOP TOOLS FILE: what makes demo.zst, see README.md. Root, cgroup v1's memory controller,
# nft, python3, zstd; TOOLS is the folder of bpf-holder and host-load. Lasts 100 s.
set -eu
stalltop=$1 tools=$2 file=$3
memory=/sys/fs/cgroup/memory
pod=kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3f1c9a52_7d0e_4b1a_9c55_2f8b6d1e7a90.slice
container=$pod/cri-containerd-5b1d7d0f3c0a4e6f9e8d7c6b5a493827160f5e4d3c2b1a09f8e7d6c5b4a39281.scope
instance=/sys/kernel/tracing/instances/agent

if [ "${4-}" != inside ]; then
    before=$(find $memory -type d -printf '/%P\n')
    work=$(mktemp -d)
    leave() {
        [ ! -e "$work/pids" ] || while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$work/pids"
        rm -rf "$work"
        sleep 1
        echo 0 >$instance/events/enable 2>/dev/null || true
        rmdir $instance 2>/dev/null || true
        find $memory/system.slice $memory/kubepods.slice $memory/user.slice -depth -type d -exec rmdir {} +
    }
    trap leave EXIT
    unshare --uts --net "$0" "$stalltop" "$tools" "$work" inside
    # What else runs on this host is left out.
    "$stalltop" stream --from "$work/all" | BEFORE=$before python3 -c '
import json, os, sys
others = set(os.environ["BEFORE"].split("\n")) - {"/"}
for line in sys.stdin:
    frame = json.loads(line)
    cgroups = frame.get("cgroups", {})
    if "rows" in cgroups:
        rows = cgroups["rows"]
        kept = [row for row in rows if row["path"] not in others]
        place = {row["path"]: at for at, row in enumerate(kept)}
        for row in kept:
            if row["parent"] is not None:
                row["parent"] = place[rows[row["parent"]]["path"]]
        cgroups["rows"] = kept
        cgroups["visible"] = len(kept)
    print(json.dumps(frame, separators=(",", ":"), ensure_ascii=False))
' | zstd -19 -q -f -o "$file"
    exit
fi

work=$3
hostname edge-3
ip link set lo up
# As somebody who came by SSH.
home=$memory/user.slice/user-0.slice/session-3.scope
mkdir -p "$home"
echo $$ >"$home/cgroup.procs"
ln -s "$(realpath "$stalltop")" "$work/stalltop"
stalltop=$work/stalltop

# Runs COMMAND..., whose file is then called NAME, in the cgroup GROUP.
start() { # GROUP NAME COMMAND...
    group=$1 name=$2 program=$3
    shift 3
    mkdir -p "$memory/$group"
    ln -sf "$(command -v "$program")" "$work/$name"
    sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$memory/$group" "$work/$name" "$@" \
        </dev/null >/dev/null 2>&1 &
    echo $! >>"$work/pids"
}
for service in sshd cron postgresql; do
    start system.slice/$service.service $service sleep 200
done
start "$container" worker sleep 200

# A monitoring agent: one program on all system calls, whose CPUs share a map, and others beside it.
mkdir -p $memory/system.slice/netdata.service
mkfifo "$work/hold"
ln -s "$tools/bpf-holder" "$work/ebpf.plugin"
sh -c 'echo $$ >"$1/system.slice/netdata.service/cgroup.procs"
    exec "$2/ebpf.plugin" raw_tracepoint_hash:sys_enter tracepoint:sched:sched_switch \
        tracepoint:sched:sched_process_exec raw_tracepoint:sched_wakeup' \
    sh $memory "$work" <"$work/hold" >"$work/held" &
echo $! >>"$work/pids"
exec 9>"$work/hold"
# Trace events that somebody left on.
mkdir $instance
echo 1 >$instance/events/tcp/enable

# A firewall with many rules: a datagram goes through all of them as often as its port says.
awk 'BEGIN {
    print "table ip demo {\nchain services {"
    for (i = 0; i < 20000; i++) print "udp dport 9 ip saddr 192.0.2.1 counter drop"
    print "}\nchain in {\ntype filter hook input priority 0;\nudp dport != 20000-20060 accept"
    for (i = 0; i <= 60; i++) print "udp dport " 20000 + i " drop\njump services"
    print "}\n}"
}' | nft -f -

"$stalltop" --journal "$work/journal" record "$work/all" --for "${DEMO_SECONDS:-100}s" &
recorder=$!

# Some traffic, and jobs that come and go and leave their page cache charged to what is gone.
start system.slice/nginx.service nginx "$tools/host-load" flood 0 3 97 100
mkdir -p "$memory/$container/jobs"
(
    for round in $(seq 45); do
        "$tools/host-load" zombies "$memory/$container/jobs" "$home" "$work/pages$round" 4
        sleep 2
    done
) &
echo $! >>"$work/pids"
sleep 25
# A resolver whose packets the firewall looks at for long, on CPU 1.
cat >"$work/queries.py" <<'QUERIES'
import os, random, socket, time
os.sched_setaffinity(0, {1})
random.seed(3)
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + 80
while time.monotonic() < end:
    out.sendto(b"?" * 32, ("127.0.0.1", 20000 + random.randint(28, 60)))
    time.sleep(random.uniform(0.3, 2.1))
QUERIES
python3=$(python3 -c 'import sys; print(sys.executable)')
start system.slice/unbound.service unbound "$python3" "$work/queries.py"
sleep 25
# And a service with many system calls, which the agent's program looks at.
start system.slice/haproxy.service haproxy "$tools/host-load" calls 50
wait $recorder
