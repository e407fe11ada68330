use super::*;

/// A stack as people write it: outermost first, separated by blanks.
fn outside_in(text: &str) -> Vec<Name> {
    text.split_whitespace().rev().map(Name::from).collect()
}

fn read(text: &str) -> Stack {
    Stack::read(&outside_in(text), false)
}

#[test]
fn a_read_of_memory_stat_is_named_by_its_show_function() {
    let stack = read(
        "entry_SYSCALL_64_after_hwframe do_syscall_64 __x64_sys_read ksys_read vfs_read \
         seq_read_iter kernfs_seq_show cgroup_seqfile_show memory_stat_show \
         memory_stat_format mem_cgroup_flush_stats cgroup_rstat_flush",
    );
    assert_eq!(stack.syscall.as_deref(), Some("read"));
    assert_eq!(stack.function.as_deref(), Some("memory_stat_show"));
    assert_eq!(stack.lock, None);
    assert!(!stack.softirq);
}
