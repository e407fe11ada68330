# vm: --cpus 4 --cpu max,-hypervisor --limit 900s --test live_locks
# The lock tracer's live tests, where waits for a spinlock are visible: four CPUs, and a kernel that
# is not told that it is in a virtual machine. One at a time: they count what all others do, too.
. /t/lib.sh
export STALLTOP_TEST_REQUIRE_ALL=1
live_locks --test-threads=1 --nocapture || fail live_locks
