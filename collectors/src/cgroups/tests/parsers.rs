use proptest::prelude::*;

use crate::cgroups::files::run_delay;
use crate::cgroups::parse::{dying, keyed, num_cgroups, processes, single};

#[test]
fn numbers_and_keys() {
    assert_eq!(single(b"42\n"), Some(42));
    assert_eq!(single(b"max\n"), None);
    assert_eq!(single(b""), None);
    assert_eq!(single(b"1 2"), None);
    let stat = b"anon 10\nfile 20\nfile_mapped 5\nslab_reclaimable 7\n";
    assert_eq!(keyed(stat, "file"), Some(20));
    assert_eq!(keyed(stat, "fil"), None);
    assert_eq!(keyed(stat, "slab_reclaimable"), Some(7));
    assert_eq!(processes(b"1\n17\n4194304\n"), 3);
    assert_eq!(processes(b""), 0);
}

#[test]
fn the_second_number_of_schedstat_is_the_delay() {
    assert_eq!(run_delay(b"1250000 73000000 17\n"), Some(73_000_000));
    assert_eq!(run_delay(b"1250000\n"), None);
    assert_eq!(run_delay(b""), None);
}

#[test]
fn the_memory_counter_is_preferred() {
    assert_eq!(
        dying(b"nr_descendants 3\nnr_dying_descendants 9\n"),
        Some(9)
    );
    assert_eq!(
        dying(b"nr_dying_descendants 9\nnr_dying_subsys_cpu 1\nnr_dying_subsys_memory 4\n"),
        Some(4)
    );
    assert_eq!(dying(b"nr_descendants 3\n"), None);
}

#[test]
fn proc_cgroups_of_old_and_new_kernels() {
    let head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n";
    let text = |row: &str| format!("{head}cpuset\t3\t1\t1\n{row}");
    assert_eq!(
        num_cgroups(text("memory\t4\t2020\t1\n").as_bytes()),
        Some(2020)
    );
    // Switched off at boot.
    assert_eq!(num_cgroups(text("memory\t0\t1\t0\n").as_bytes()), None);
    // 7.x lists only controllers of v1.
    assert_eq!(num_cgroups(text("").as_bytes()), None);
    assert_eq!(num_cgroups(b"memory\t4\n"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400), key in "\\PC{0,8}") {
        single(&bytes);
        run_delay(&bytes);
        keyed(&bytes, &key);
        dying(&bytes);
        num_cgroups(&bytes);
        prop_assert!(processes(&bytes) <= bytes.len() as u64);
    }

    #[test]
    fn what_is_written_is_read(value in any::<u64>(), other in any::<u64>()) {
        let text = format!("nr_descendants {other}\nnr_dying_descendants {value}\n");
        prop_assert_eq!(dying(text.as_bytes()), Some(value));
        let text = format!("memory\t4\t{value}\t1\n");
        prop_assert_eq!(num_cgroups(text.as_bytes()), Some(value));
    }
}
