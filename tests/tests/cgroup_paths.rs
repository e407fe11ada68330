//! Cgroup paths of many service managers and container engines, and what a person calls them:
//! `fixtures/cgroup-paths.txt` says where each shape is documented.

use stalltop_collectors::owner;

#[test]
fn every_known_path_is_named_as_a_person_would() {
    let text = include_str!("../fixtures/cgroup-paths.txt");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let columns: Vec<_> = line.split('\t').collect();
        let [kind, path, name] = columns[..] else {
            panic!("not three columns: {line}");
        };
        let owner = owner::of_cgroup_path(path);
        if format!("{:?}", owner.kind) != kind || *owner.name != *name {
            wrong.push(format!("{path}: {:?} {}", owner.kind, owner.name));
        }
        seen += 1;
    }
    assert!(seen > 50, "only {seen} paths");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
