use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const SMALL: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000100 T asm_exc_nmi
ffffffff811fff00 t __pfx_vfs_read
ffffffff811fff10 T vfs_read
ffffffff812001a0 t seq_read_iter
ffffffff812001a0 W seq_read_alias
ffffffff81400000 T _etext
ffffffff81a00000 D jiffies
ffffffffc0400000 t other_init\t[other]
ffffffffc0201000 t nft_do_chain\t[nf_tables]
ffffffffc0201800 T nft_trace\t[nf_tables]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_tick\t[bpf]
garbage
ffffffff81 T
";

fn symbols(text: &str) -> Symbols {
    Symbols::of(Table::read(text.as_bytes()).unwrap())
}

fn named(symbols: &mut Symbols, address: u64) -> String {
    symbols.name(address).name.to_string()
}

#[test]
fn addresses_have_the_symbol_before_them() {
    let mut s = symbols(SMALL);
    assert_eq!(named(&mut s, 0xffff_ffff_811f_ff10), "vfs_read");
    assert_eq!(named(&mut s, 0xffff_ffff_8120_019f), "vfs_read");
    assert_eq!(named(&mut s, 0xffff_ffff_8120_01a0), "seq_read_iter");
    assert_eq!(
        named(&mut s, 0xffff_ffff_c020_17ff),
        "nft_do_chain [nf_tables]"
    );
    assert_eq!(
        named(&mut s, 0xffff_ffff_c030_0020),
        "bpf_prog_6deef7357e7b4530_tick [bpf]"
    );
}

#[test]
fn what_is_too_far_stays_an_address() {
    let mut s = symbols(SMALL);
    for hole in [
        0,
        0xffff_ffff_80ff_ffff,
        // Behind the end of the kernel's text, and far behind a module's last symbol.
        0xffff_ffff_8140_0010,
        0xffff_ffff_c020_1800 + FARTHEST_IN_TEST,
        0xffff_ffff_c500_0000,
        u64::MAX,
    ] {
        let named = s.name(hole);
        assert!(!named.known, "{named:?}");
        assert_eq!(&*named.name, format!("0x{hole:016x}"));
    }
}

const FARTHEST_IN_TEST: u64 = 64 << 10;

#[test]
fn text_far_from_the_kernel_is_found() {
    // arm64 may put BPF programs anywhere in vmalloc space, more than 4 GB away.
    let text = "ffff800008000000 T _text\nffff8000081000f0 T vfs_read\n\
                ffff80007a000000 t bpf_prog_0123456789abcdef_x\t[bpf]\nffffd00000000000 t far\t[m]\n";
    let mut s = symbols(text);
    assert_eq!(named(&mut s, 0xffff_8000_0810_00f4), "vfs_read");
    assert_eq!(named(&mut s, 0xffff_d000_0000_0010), "far [m]");
    assert!(!s.name(0xffff_cfff_ffff_ffff).known);
}

#[test]
fn hidden_addresses_say_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put(
        "proc/kallsyms",
        "0000000000000000 T _stext\n0000000000000000 t vfs_read\n",
    );
    put("proc/sys/kernel/kptr_restrict", "2\n");
    let kallsyms = root.join("proc/kallsyms");
    let restrict = root.join("proc/sys/kernel/kptr_restrict");
    let reason = |syslog| read(&kallsyms, &restrict, syslog).unwrap_err();
    assert_eq!(
        reason(true).to_string(),
        "kernel.kptr_restrict is 2, needs 1"
    );
    assert_eq!(&*reason(true).fix(), "sysctl -w kernel.kptr_restrict=1");
    put("proc/sys/kernel/kptr_restrict", "0\n");
    assert_eq!(reason(false).to_string(), "CAP_SYSLOG is missing");
    assert!(matches!(reason(true), Reason::Parse { .. }));
    std::fs::remove_file(&kallsyms).unwrap();
    assert!(matches!(reason(true), Reason::NotBuilt { .. }));
}

/// Polls until the thread has ended.
fn settle(symbols: &mut Symbols, now: Instant) {
    while symbols.poll(now) {
        std::thread::yield_now();
    }
}

#[test]
fn a_missed_address_reads_the_table_again_but_not_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let proc = dir.path().join("proc");
    std::fs::create_dir_all(&proc).unwrap();
    std::fs::write(proc.join("kallsyms"), SMALL).unwrap();
    let mut s = Symbols::new(&Env::at(dir.path()));
    assert_eq!(s.state().reason(), Some(&Reason::Starting));
    let start = Instant::now();
    settle(&mut s, start);
    assert_eq!(s.state(), &Reading::Value(()));
    assert!(s.name(0xffff_ffff_811f_ff10).known);

    let mut more = SMALL.to_owned();
    more.push_str("ffffffffc1000000 t new_one\t[new]\n");
    std::fs::write(proc.join("kallsyms"), more).unwrap();
    assert!(!s.name(0xffff_ffff_c100_0004).known);
    assert!(!s.poll(start + AGAIN / 2));
    assert!(!s.name(0xffff_ffff_c100_0004).known);
    settle(&mut s, start + AGAIN);
    assert_eq!(named(&mut s, 0xffff_ffff_c100_0004), "new_one [new]");
    // All is known: no third reading.
    assert!(!s.poll(start + AGAIN * 3));
    // What is never found is looked for ever more seldom.
    let mut now = start + AGAIN * 3;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let asked = now;
        assert!(!s.name(0x10).known);
        while !s.poll(now) {
            now += AGAIN;
        }
        settle(&mut s, now);
        waits.push((now - asked).as_secs());
    }
    assert_eq!(waits, [0, 20, 40, 80, 160, 320, 320]);
}

#[test]
fn a_large_table_stays_small() {
    let mut text = String::new();
    for n in 0..120_000u64 {
        let address = 0xffff_ffff_8100_0000 + n * 128;
        writeln!(text, "{address:016x} t a_function_of_24_chars{n:06}").unwrap();
    }
    let table = Table::read(text.as_bytes()).unwrap();
    assert_eq!(table.len(), 120_000);
    assert!(table.bytes() < 4_700_000, "{}", table.bytes());
}

#[test]
fn hostile_names_are_only_bytes() {
    let long = format!(
        "ffffffff81000000 t {}\nffffffff81001000 t ok\n",
        "x".repeat(200_000)
    );
    let mut s = symbols(&long);
    assert_eq!(named(&mut s, 0xffff_ffff_8100_1001), "ok");
    let table = Table::read(&b"ffffffff81000000 t \xff\x1b[2J\t[m\x00]\n"[..]).unwrap();
    assert_eq!(
        table.find(0xffff_ffff_8100_0000).unwrap().name,
        b"\xff\x1b[2J"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_table(bytes in proptest::collection::vec(any::<u8>(), 0..2000), at: u64) {
        let table = Table::read(&bytes[..]).unwrap();
        let _ = table.find(at);
    }

    #[test]
    fn any_rows_are_found(rows in proptest::collection::vec((1u64.., "[a-z]{1,8}", 0..4u8), 1..60), at: u64) {
        let mut text = String::new();
        for (address, name, module) in &rows {
            match module {
                0 => writeln!(text, "{address:016x} t {name}").unwrap(),
                m => writeln!(text, "{address:016x} t {name}\t[m{m}]").unwrap(),
            }
        }
        let table = Table::read(text.as_bytes()).unwrap();
        for (address, ..) in &rows {
            prop_assert_eq!(table.find(*address).unwrap().offset, 0);
        }
        if let Some(found) = table.find(at) {
            prop_assert!(rows.iter().any(|(address, ..)| *address == at - found.offset));
        }
    }
}
