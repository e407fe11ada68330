# What the scripts that run in machines share. Everything a test looks at afterwards goes to /out.
set -u

# until_true SECONDS COMMAND...: waits for a condition; the test fails if it does not come.
until_true() {
    left=$(($1 * 10))
    shift
    until "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "not in time: $*"
        sleep 0.1
    done
}

fail() {
    echo "FAILED: $*"
    exit 1
}

# hold KIND...: somebody else's BPF tool; what it could attach is in /out/held.
hold() {
    mkfifo /run/hold
    bpf-holder "$@" </run/hold >/out/held &
    holder=$!
    exec 9>/run/hold
    until_true 20 grep -q ^ready /out/held
}

# make_zombies FOLDER COUNT: cgroups that are gone, each still charged with a page of a tmpfs file.
make_zombies() {
    mkdir -p "$1"
    for n in $(seq "$2"); do
        mkdir "$1/zombie$n"
        sh -c 'echo $$ >"$0/cgroup.procs"; head -c 4096 /dev/zero >"$1"' "$1/zombie$n" "/tmp/page$n"
        rmdir "$1/zombie$n"
    done
}

# off_and_on SECONDS: all kernel probes off, and SECONDS later on again. What was said, and what the
# kernel's switch is then, is in /out.
off_and_on() {
    stalltop off kprobes --yes >/out/off 2>&1 </dev/null
    echo "status $?" >>/out/off
    cat /sys/kernel/debug/kprobes/enabled >/out/enabled.off
    sleep "$1"
    stalltop undo --yes >/out/undo 2>&1 </dev/null
    echo "status $?" >>/out/undo
    cat /sys/kernel/debug/kprobes/enabled >/out/enabled.undone
}
