# What makes demo.zst: run in a machine of its own, see README.md. Load on loopback only.
set -u
hostname demo
tracing=/sys/kernel/tracing

# Somebody left events on, in the top level and in an instance of their own.
for event in irq/softirq_entry irq/softirq_exit irq/irq_handler_entry sched/sched_process_exec \
    sched/sched_process_fork sched/sched_process_exit oom/mark_victim; do
    echo 1 >"$tracing/events/$event/enable"
done
mkdir "$tracing/instances/agent"
echo 1 >"$tracing/instances/agent/events/tcp/enable"

# And probes of the classic kind.
for probe in tcp_sendmsg tcp_cleanup_rbuf udp_sendmsg; do
    echo "p:agent/$probe $probe" >>"$tracing/kprobe_events"
done
echo "r:agent/accept_done inet_csk_accept" >>"$tracing/kprobe_events"
echo 1 >"$tracing/events/agent/enable"

# Cgroups with something in them, and some that are gone but still charged.
group() {
    mkdir -p "/sys/fs/cgroup/$1"
}
for parent in system.slice kubepods.slice kubepods.slice/kubepods-burstable.slice; do
    group "$parent"
    echo +memory >"/sys/fs/cgroup/$parent/cgroup.subtree_control"
done
pod=kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3f1c9a52_7d0e_4b1a_9c55_2f8b6d1e7a90.slice
group "$pod"
echo +memory >"/sys/fs/cgroup/$pod/cgroup.subtree_control"
for path in system.slice/sshd.service system.slice/postgresql.service system.slice/cron.service \
    "$pod/cri-containerd-5b1d7d0f3c0a4e6f9e8d7c6b5a493827160f5e4d3c2b1a09f8e7d6c5b4a39281.scope"; do
    group "$path"
    sh -c "echo \$\$ >/sys/fs/cgroup/$path/cgroup.procs; exec tail -f /dev/null" </dev/null &
done

# A monitoring tool with BPF programs on hot functions, held open for as long as it runs.
group system.slice/agent.service
mkfifo /tmp/open
sh -c 'echo $$ >/sys/fs/cgroup/system.slice/agent.service/cgroup.procs
    exec bpf-holder kprobe:udp_recvmsg kretprobe:udp_recvmsg kprobe:tcp_v4_connect \
        tracepoint:sched:sched_switch raw_tracepoint:sys_enter' </tmp/open &
exec 9>/tmp/open

zombies() { # COUNT
    local i=0
    mkdir -p /tmp/charged
    while [ $i -lt "$1" ]; do
        group "$pod/job$i"
        sh -c "echo \$\$ >/sys/fs/cgroup/$pod/job$i/cgroup.procs; echo x >/tmp/charged/$i-\$\$; echo \$\$ >/sys/fs/cgroup/cgroup.procs"
        rmdir "/sys/fs/cgroup/$pod/job$i"
        i=$((i + 1))
    done
}
zombies 150

flood() { # CPU SECONDS: datagrams to nobody, over loopback
    timeout "$2" taskset -c "$1" sh -c 'while :; do head -c 400000 /dev/zero | nc -u -w 1 127.0.0.1 9 >/dev/null 2>&1; done' &
}
pings() { # CPU SECONDS
    timeout "$2" taskset -c "$1" ping -q -A 127.0.0.1 >/dev/null 2>&1 &
}

stalltop record /out/demo.zst --for "${1:-125}s" &
recorder=$!
sleep 4
pings 3 45
sleep 12
pings 5 25
sleep 18
flood 3 14
zombies 40
pings 6 20
sleep 20
flood 5 16
pings 1 14
sleep 22
zombies 30
pings 3 16
sleep 20
flood 5 8
# The last seconds are calm: what is left to see is the history.
wait $recorder
ls -l /out
