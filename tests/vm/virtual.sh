# vm: --cpus 4 --cpu max --program stalltop --limit 120s
# A machine that knows that it is one, without paravirtual spinlocks: its spin waits have no
# tracepoint.
. /t/lib.sh
stalltop stream --locks always --sample off --tick 1s --for 100s >/out/stream 2>/out/errors &
stream=$!
until_true 60 grep -q '"hidden":\[' /out/stream
kill $stream
wait $stream || fail "$(cat /out/errors)"
