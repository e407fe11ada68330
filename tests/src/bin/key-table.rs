//! Prints the table of keys, for `cargo xtask docs`.

fn main() {
    print!("{}", stalltop_view::key_table());
}
