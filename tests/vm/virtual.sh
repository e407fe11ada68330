# vm: --cpus 5,maxcpus=6 --append maxcpus=4 --cpu max --program stalltop --test live_stalls
# vm: --memory 1024 --limit 900s
# A machine that knows that it is one, without paravirtual spinlocks: its spin waits have no
# tracepoint. Four of its CPUs are online; CPU 4 never was, CPU 5 may be plugged in one day. Then
# CPUs come and go.
. /t/lib.sh
stalltop stream --locks always --sample off --tick 1s --for 280s >/out/stream 2>/out/errors &
stream=$!
until_true 60 grep -q '"hidden":\[' /out/stream
kill $stream
wait $stream || fail "$(cat /out/errors)"

# The programs by themselves, one test each.
live_stalls --ignored --test-threads=1 >/out/live 2>&1 || fail "$(cat /out/live)"

# All of it: sampler, lock tracer, counters of cores, stalls.
cpu() { echo "$2" >/sys/devices/system/cpu/cpu$1/online; }
busy() { taskset "$(printf %x $((1 << $1)))" sh -c 'while :; do cat /proc/stat; done' >/dev/null & }
stalltop stream --locks always --sample always --stall 1s --tick 1s --for 580s >/out/hotplug \
    2>/out/errors &
stream=$!
samples() { grep -c '^{"type":"sample"' /out/hotplug; }
sampled() { [ "$(samples)" -ge "$1" ]; }
# Two whole ticks later.
ticks() { until_true 60 sampled $(($(samples) + 3)); }
until_true 60 grep -qF '"sampling":[0,1,2,3]' /out/hotplug
now() { cut -d ' ' -f 1 /proc/uptime; }
# Gone and back between two looks at which CPUs are online, over and over.
since=$(now)
for turn in 1 2 3; do
    cpu 2 0 && cpu 2 1 || fail "CPU 2 does not go and come"
done
echo "2 $since $(now)" >/out/absences
# Gone for longer, and here for the first time.
since=$(now)
cpu 1 0
cpu 4 1
echo "4 0 $(now)" >>/out/absences
ticks
samples >/out/away
cpu 1 1
echo "1 $since $(now)" >>/out/absences
ticks
samples >/out/back
for cpu in 1 2 4; do busy $cpu; done
# Two windows of which samples of the sampler tell: a busy CPU is not sampled in each.
of_sampler() { tail -n +"$(($(cat /out/back) + 1))" /run/samples | grep -c '"source":"1 kHz cpu-clock"'; }
sampled_twice() { grep '^{"type":"sample"' /out/hotplug >/run/samples; [ "$(of_sampler)" -ge 2 ]; }
until_true 60 sampled_twice
ticks
samples >/out/end
kill $stream $(jobs -p)
wait $stream || fail "$(cat /out/errors)"
