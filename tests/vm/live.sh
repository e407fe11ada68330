# vm: --test live_bpf --test live_change --test live_dynamic --test live_cores --test live_stalls
# The machine's root file system is its memory, and holds all of them.
# vm: --test live_tracing --test live_locks --memory 1536 --limit 900s
# The live tests, on this machine's kernel. One at a time: they look at the same tracefs.
. /t/lib.sh
export STALLTOP_TEST_REQUIRE_ALL=1
slow=
case $(uname -r) in
# Emulated, this kernel lets ksoftirqd run so rarely that seeing it five times takes a minute.
6.12.*) slow='--skip ksoftirqd_agrees_with_schedstat' ;;
esac
for test in live_bpf live_change live_dynamic; do
    $test --test-threads=1 || fail "$test"
done
# What the lock tracer does here, and what it says before 5.19; the scenario `locks` has the rest.
live_locks --test-threads=1 a_kernel_without_the_tracepoints_says_so || fail live_locks
# busybox's tc knows no clsact.
live_tracing --test-threads=1 --skip tc_filters_and_links_of_a_device_are_found || fail live_tracing
live_cores --test-threads=1 $slow || fail live_cores
[ -e /proc/schedstat ] || fail schedstat
live_stalls --test-threads=1 || fail live_stalls
