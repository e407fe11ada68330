//! The README stays true: its commands are accepted, its table is that of the program, its
//! pictures and links exist.

use std::fs;
use std::process::Command;

use stalltop_tests::program::{root, stalltop};

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("a README")
}

/// The commands of all `sh` blocks: comments, `sudo` and what a shell does with the output left
/// out.
fn commands() -> Vec<String> {
    let text = readme();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .flat_map(|block| block.split("```").next().unwrap_or_default().lines())
        .map(|line| {
            let end = line.find(['#', '|']).unwrap_or(line.len());
            let command = line[..end].trim();
            command.strip_prefix("sudo ").unwrap_or(command).to_owned()
        })
        .filter(|command| !command.is_empty())
        .collect()
}

/// Arguments as a shell would split them; the README quotes with `'` only.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (part, text) in command.split('\'').enumerate() {
        if part % 2 == 1 {
            words.push(text.to_owned());
        } else {
            words.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn the_first_two_commands_are_what_ci_runs() {
    let commands = commands();
    assert_eq!(
        commands[..2],
        ["cargo run --release", "cargo test --workspace"]
    );
    let ci = fs::read_to_string(root().join(".ci/run")).expect("the CI script");
    for command in &commands[..2] {
        assert!(ci.contains(command), "CI does not run {command}");
    }
}

#[test]
fn every_command_is_accepted() {
    let mut seen = 0;
    for command in commands() {
        let all = words(&command);
        let (program, arguments) = match all.split_first() {
            Some((name, rest)) if name == "stalltop" => (stalltop().as_os_str(), rest.to_vec()),
            Some((name, rest)) if name == "cargo" && rest[0] == "xtask" => {
                let run = ["run", "--quiet", "--package", "xtask", "--"];
                let run = run.map(str::to_owned).into_iter();
                (
                    env!("CARGO").as_ref(),
                    run.chain(rest[1..].to_vec()).collect(),
                )
            }
            Some((name, _)) if name == "cargo" => continue,
            _ => panic!("{command}: neither stalltop nor cargo"),
        };
        // Everything before --help is parsed first, so a wrong word is an error.
        let output = Command::new(program)
            .args(&arguments)
            .arg("--help")
            .current_dir(root())
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        seen += 1;
    }
    assert!(seen > 5, "only {seen} commands were tried");
}

#[test]
fn the_key_table_is_the_programs() {
    let table = stalltop_view::key_table();
    assert!(readme().contains(&table), "run `cargo xtask docs`");
}

#[test]
fn links_and_pictures_exist() {
    let text = readme();
    let mut seen = 0;
    for link in text.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or_default();
        let file = target.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains("://") {
            assert!(root().join(file).exists(), "{target} does not exist");
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} links were tried");
}

#[test]
fn blocks_are_found_and_split() {
    assert_eq!(
        words("stalltop off 'irq:*' --dry-run"),
        ["stalltop", "off", "irq:*", "--dry-run"]
    );
}
