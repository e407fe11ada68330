//! A machine that knows that it is one, and whose CPUs come and go.

use serde_json::Value;
use stalltop_tests::require;

use super::{Run, counted, fetched, run};

#[test]
fn a_virtual_machine_tells_that_its_spin_waits_do_not_show_on_6_1() {
    require!(fetched("6.1"));
    let run = run("6.1", &[], "virtual");
    let lines = run.lines("stream");
    let tried = lines
        .iter()
        .rev()
        .find_map(|line| line["locks"]["watch"]["hidden"].as_array())
        .expect("locks of our own were tried");
    let spins = tried.iter().find(|hidden| hidden["what"] == "spinlocks");
    let spins = spins.unwrap_or_else(|| panic!("{tried:?}"));
    assert_eq!(spins["kinds"], serde_json::json!(["spin"]));
    let why = &spins["why"];
    assert_eq!(why["kind"], "hidden_waits", "{why}");
    assert_eq!(why["what"], "spin waits", "{why}");
    assert_eq!(why["why"], "virtual, no paravirtual spinlocks", "{why}");
    assert!(
        why["mend"].as_str().unwrap().contains("paravirtual"),
        "{why}"
    );
    everything_per_cpu_survives_hotplug(&run);
}

/// CPU 2 went and came between two ticks, CPU 1 was away for longer, CPU 4 had never been online.
fn everything_per_cpu_survives_hotplug(run: &Run) {
    let mut lines = run.lines("hotplug");
    let stalls: Vec<Value> = lines
        .extract_if(.., |line| line["type"] == "stall")
        .collect();
    lines.retain(|line| line["type"] == "sample");
    let at = |name: &str| {
        let count: usize = run.text(name).trim().parse().unwrap();
        &lines[count - 1]
    };
    let (away, back, end) = (at("away"), at("back"), at("end"));
    let online = |sample: &Value| -> Vec<u64> {
        let cpus = sample["cpus"].as_array().unwrap().iter();
        let online = cpus.filter(|cpu| cpu["online"] == true);
        online.map(|cpu| cpu["cpu"].as_u64().unwrap()).collect()
    };
    let sampling = |sample: &Value| sample["stalls"]["sampling"].to_string();
    assert_eq!(online(away), [0, 2, 3, 4]);
    assert_eq!(sampling(away), "[0,2,3,4]");
    for sample in [back, end] {
        assert_eq!(online(sample), [0, 1, 2, 3, 4]);
        assert_eq!(sampling(sample), "[0,1,2,3,4]");
    }
    // Three of them were busy from then on. Samples of a window are the sampler's where it took most
    // of each CPU that was busy, so never with one that is not sampled.
    let sources: Vec<&Value> = lines
        .iter()
        .skip(run.text("back").trim().parse().unwrap())
        .map(|line| &line["locks"]["share"]["source"])
        .collect();
    let sampled = sources.iter().filter(|of| **of == "1 kHz cpu-clock");
    assert!(sampled.count() >= 2, "{sources:?}");
    for cpu in [1, 2, 4] {
        let timers = |sample: &Value| {
            let cpus = sample["cpus"].as_array().unwrap();
            let this = cpus.iter().find(|of| of["cpu"] == cpu).unwrap();
            assert_eq!(this["online"], true);
            counted(&serde_json::json!({ "cpus": [this] }), "TIMER")
        };
        assert!(timers(end) > timers(back), "CPU {cpu}");
    }
    // That a CPU was away is no stall of it. All the machine may be stopped for as long as a stall
    // takes, at any time: that is told, and rightly so.
    println!("stalls: {stalls:?}");
    for line in run.text("absences").lines() {
        // The CPU, since when and until when, in seconds since boot.
        let numbers: Vec<f64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let spans = |stall: &&Value| {
            let at = stall["at_ns"].as_f64().unwrap() / 1e9;
            let from = at - stall["delay_ns"].as_f64().unwrap() / 1e9;
            stall["cpu"].as_f64() == Some(numbers[0]) && from < numbers[2] && at > numbers[1]
        };
        assert!(!stalls.iter().any(|s| spans(&s)), "{line}: {stalls:?}");
    }
}
