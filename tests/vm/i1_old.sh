# vm: --cpus 4 --cpu max,-hypervisor --memory 768 --limit 900s
# vm: --program stalltop --program bpf-holder --program host-load
# Incident I1 in miniature where waits for locks do not show: its own kernel had no tracepoints of
# contention, and what it waits for is told by samples alone. An agent's kretprobe on a hot function
# writes one hash from all CPUs; all kernel probes are switched off, and on again; stalltop records
# it all.
. /t/lib.sh
hostname proxy-7
# Before 5.11 maps count as locked memory (kernel/bpf/syscall.c, bpf_charge_memlock).
ulimit -l unlimited

ln -s /t/bpf-holder /run/ebpf.plugin
mkfifo /run/hold
/run/ebpf.plugin kretprobe_hash:__x64_sys_getppid </run/hold >/out/held &
agent=$!
exec 9>/run/hold
until_true 20 grep -q ^ready /out/held
grep -q "^held" /out/held || fail "$(cat /out/held)"

host-load calls 200 >/out/calls &
load=$!
until_true 20 test -s /out/calls
stalltop record /out/i1.zst --stall 1s --tick 1s --for 280s >/out/record 2>&1 &
recorder=$!
sleep 30
off_and_on 24
sleep 24
kill $recorder $load
wait $recorder || fail "record: $(cat /out/record)"
exec 9>&-
wait
