//! What hostile tools try, one test each, and that a call which follows is answered as usual.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_tools::{CallError, Ended, Grants, Kind, Limits, Quota, Settings, Tool};
use common::*;
use serde_json::json;
use std::time::{Duration, Instant};

/// Small limits, so that reaching them takes no time.
fn tight() -> Limits {
    Limits {
        memory_bytes: 8 << 20,
        wall: Duration::from_millis(300),
        cpu: Duration::from_millis(200),
        output_bytes: 64 << 10,
        ..Limits::default()
    }
}

#[test]
fn a_loop_without_end_is_stopped() {
    let bench = Bench::new(Settings::default());
    for (name, body) in [
        ("plain", "(loop $l (br $l)) (i32.const 0)"),
        ("bulk", "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 60000)) (br $l)) (i32.const 0)"),
        ("calls", "(loop $l (call $nothing) (br $l)) (i32.const 0)"),
    ] {
        let tool = bench.component(&body_component(body), tight(), Grants::default()).unwrap();
        let started = Instant::now();
        let called = bench.call(&tool, "t", json!({}));
        assert!(
            matches!(called.result, Err(CallError::CpuSpent { .. } | CallError::TimedOut { .. })),
            "{name}: {called:?}"
        );
        assert_eq!(called.report.ended, Ended::Limit);
        assert!(started.elapsed() < Duration::from_secs(3), "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn a_start_function_without_end_does_not_load() {
    let bench = Bench::new(Settings::default());
    let module = core_module("(i64.const 0)").replace("(memory", "(func $s (loop $l (br $l))) (start $s) (memory");
    let error = bench.load(Kind::Core, &module, tight(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("limit of"), "{}", chain(&error));
}

#[test]
fn memory_ends_at_the_limit() {
    let bench = Bench::new(Settings::default());
    let grow =
        "(block $b (loop $l (br_if $b (i32.eq (memory.grow (i32.const 1)) (i32.const -1))) (br $l))) unreachable";
    let tool = bench.component(&body_component(grow), tight(), Grants::default()).unwrap();
    let called = bench.call(&tool, "t", json!({}));
    assert!(matches!(called.result, Err(CallError::OutOfMemory { limit: 8_388_608, .. })), "{called:?}");
    assert!(called.report.memory_bytes <= 8 << 20, "{called:?}");
    // As a module that wants too much from the start: it does not load.
    let module =
        core_module("(i64.const 0)").replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 60000)");
    assert!(bench.load(Kind::Core, &module, tight(), Grants::default()).is_err());
}

#[test]
fn tables_memories_and_features_beyond_the_limits_are_refused() {
    let bench = Bench::new(Settings::default());
    let with = |what: &str| core_module("(i64.const 0)").replace("(memory", &format!("{what} (memory"));
    for what in [
        "(table 100000000 funcref)",
        "(memory 1)",
        "(memory i64 1)",
        "(memory 1 2 shared)",
        "(type $a (array (mut i64)))",
    ] {
        assert!(bench.load(Kind::Core, &with(what), tight(), Grants::default()).is_err(), "{what}");
    }
    let grow = "(table $t 1 funcref) (func $g (block $b (loop $l (br_if $b (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))) (br $l))))";
    let module = core_module("(call $g) (i64.const 0)").replace("(memory", &format!("{grow} (memory"));
    // The table stops growing and the module answers nothing, which is no result.
    assert!(bench.load(Kind::Core, &module, tight(), Grants::default()).is_err());
}

#[test]
fn a_deep_recursion_is_a_crash_of_the_tool_alone() {
    let bench = Bench::new(Settings::default());
    let module = body_component("(call $deep (i32.const 0))");
    let tool = bench.component(&module, tight(), Grants::default()).unwrap();
    for _ in 0..3 {
        let called = bench.call(&tool, "t", json!({}));
        assert!(matches!(&called.result, Err(CallError::Trapped { what }) if what.contains("stack")), "{called:?}");
    }
}

#[test]
fn strings_out_of_bounds_and_results_too_large_are_errors() {
    let bench = Bench::new(Settings::default());
    // A result that lies outside of the memory, then one of 7 MB where 64 KiB are allowed.
    let outside = text_result("0x40000000", "16");
    let tool = bench.component(&body_component(&outside), tight(), Grants::default()).unwrap();
    let called = bench.call(&tool, "t", json!({}));
    assert!(matches!(called.result, Err(CallError::Trapped { .. })), "{called:?}");
    let large = format!("(drop (memory.grow (i32.const 120))) {}", text_result("0", "7000000"));
    let tool = bench.component(&body_component(&large), tight(), Grants::default()).unwrap();
    let called = bench.call(&tool, "t", json!({}));
    assert_eq!(called.result, Err(CallError::OutputTooLarge { limit: 64 << 10 }), "{:?}", called.report);
    let module = core_module("(i64.const 0x00000000_06400000)");
    let error = bench.load(Kind::Core, &module, tight(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("larger than"), "{}", chain(&error));
    let module = core_module("(i64.const 0x7fffffff_00000010)");
    let error = bench.load(Kind::Core, &module, tight(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("outside"), "{}", chain(&error));
}

#[test]
fn a_list_without_end_is_refused() {
    let bench = Bench::new(Settings::default());
    // A list of blocks that does not lie in the memory, and one that does and is larger than a result may be.
    for (length, text) in [("0x0fffffff", "16"), ("6000", "0")] {
        let body = text_result("0", text)
            .replace("(i32.const 4104) (i32.const 1)", &format!("(i32.const 4104) (i32.const {length})"));
        let tool = bench.component(&body_component(&body), tight(), Grants::default()).unwrap();
        let called = bench.call(&tool, "t", json!({}));
        let refused = matches!(called.result, Err(CallError::Trapped { .. } | CallError::OutputTooLarge { .. }));
        assert!(refused, "{length}: {called:?}");
        assert!(called.report.duration < Duration::from_secs(2), "{length}: {called:?}");
    }
}

#[test]
fn a_scratch_folder_is_empty_each_time_and_leads_nowhere() {
    let parent = tempfile::tempdir().unwrap();
    let bench = Bench::new(Settings { scratch: parent.path().to_owned(), ..Settings::default() });
    let grants = Grants { scratch: true, ..Grants::default() };
    let tool = bench.load(Kind::Command, &scribbler(), Limits::default(), grants).unwrap();
    for call in 0..3 {
        // What it left the last time; an absolute path; going up; a link that leads out.
        assert_eq!(bench.call(&tool, "t", json!({})).result.unwrap().text(), "0 0 0 0", "call {call}");
    }
    let left: Vec<_> = std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_call_finds_nothing_of_another() {
    let bench = Bench::new(Settings::default());
    // Counts in a global and in memory, and says whether either was already counted.
    let body = "(if (i32.or (global.get $g) (i32.load (i32.const 40000))) (then unreachable))
        (global.set $g (i32.const 1)) (i32.store (i32.const 40000) (i32.const 1))";
    let body = format!("{body} {}", text_result("1024", "0"));
    let tool = bench.component(&body_component(&body), Limits::default(), Grants::default()).unwrap();
    for n in 0..50 {
        let called = bench.call(&tool, "t", json!({}));
        assert!(called.result.is_ok(), "call {n}: {called:?}");
    }
}

#[test]
fn files_variables_and_the_network_are_not_there() {
    let bench = Bench::new(Settings::default());
    // Safe by Rust's rules: no other thread of this test reads the environment. It would be seen if WASI inherited it.
    let tool = bench.load(Kind::Command, &snooper(), Limits::default(), Grants::default()).unwrap();
    let called = bench.call(&tool, "t", json!({}));
    // environment size, argument size, error of the first preopened folder (8: bad descriptor), of opening a path.
    assert_eq!(called.result.unwrap().text(), "0 0 8 8");
    // A component that imports what no tool has.
    let wat = "(component (import \"wasi:http/outgoing-handler@0.2.0\" (instance)))";
    let error = bench.load(Kind::Component, wat, Limits::default(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("no tool is given"), "{}", chain(&error));
    let wat = "(component (import \"caxton:tool/http@0.1.0\" (instance)))";
    let error = bench.load(Kind::Component, wat, Limits::default(), Grants::default()).unwrap_err();
    assert!(chain(&error).contains("is not granted"), "{}", chain(&error));
    let error = bench
        .load(Kind::Core, "(module (import \"env\" \"system\" (func)))", Limits::default(), Grants::default())
        .unwrap_err();
    assert!(chain(&error).contains("gets no imports"), "{}", chain(&error));
}

#[test]
fn a_guest_that_sleeps_is_stopped_too() {
    let bench = Bench::new(Settings::default());
    let tool = bench.load(Kind::Command, &sleeper(), tight(), Grants::default()).unwrap();
    let started = Instant::now();
    let called = bench.call(&tool, "t", json!({}));
    assert!(matches!(called.result, Err(CallError::TimedOut { .. })), "{called:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn too_many_calls_are_refused_and_others_answered_while_eight_spin() {
    let bench = Bench::new(Settings { threads: 10, queue: 4, ..Settings::default() });
    let limits = Limits { wall: Duration::from_secs(2), cpu: Duration::from_secs(2), concurrent_calls: 4, ..tight() };
    let spin = "(loop $l (br $l)) (i32.const 0)";
    let spinners: Vec<_> =
        (0..2).map(|_| bench.component(&body_component(spin), limits.clone(), Grants::default()).unwrap()).collect();
    let fine =
        bench.component(&body_component(&text_result("1024", "2")), Limits::default(), Grants::default()).unwrap();
    bench.runtime.block_on(async {
        let spinning: Vec<_> =
            spinners.iter().flat_map(|tool| (0..60).map(|_| tokio::spawn(call(tool.clone(), json!({}))))).collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            let called = call(fine.clone(), json!({})).await;
            assert!(called.result.is_ok(), "{called:?}");
            slowest = slowest.max(started.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        let mut busy = 0;
        for task in spinning {
            let called = task.await.unwrap();
            busy += usize::from(matches!(called.result, Err(CallError::Busy { .. })));
        }
        // Four run and thirty-two wait, per tool; the others are refused at once.
        assert!(busy >= 48, "{busy}");
    });
    assert!(bench.call(&fine, "t", json!({})).result.is_ok());
}

#[test]
fn a_full_queue_refuses_and_names_what_is_full() {
    let bench = Bench::new(Settings { threads: 2, queue: 3, ..Settings::default() });
    let limits = Limits { concurrent_calls: 64, wall: Duration::from_secs(1), cpu: Duration::from_secs(1), ..tight() };
    let spin = bench.component(&body_component("(loop $l (br $l)) (i32.const 0)"), limits, Grants::default()).unwrap();
    bench.runtime.block_on(async {
        let calls: Vec<_> = (0..40).map(|_| tokio::spawn(call(spin.clone(), json!({})))).collect();
        let (mut refused, mut stopped) = (0, 0);
        for task in calls {
            match task.await.unwrap().result {
                Err(CallError::Busy { what }) => {
                    assert!(what.contains("on this node"), "{what}");
                    refused += 1;
                }
                Err(CallError::CpuSpent { .. } | CallError::TimedOut { .. }) => stopped += 1,
                other => panic!("{other:?}"),
            }
        }
        // Two run and three wait; the others are refused.
        assert_eq!((refused, stopped), (35, 5));
    });
    let fine = bench.component(&body_component(&text_result("1024", "2")), tight(), Grants::default()).unwrap();
    assert!(bench.call(&fine, "t", json!({})).result.is_ok());
}

#[test]
fn eight_tools_that_spin_hold_up_nobody() {
    let bench = Bench::new(Settings::default());
    let spin = body_component("(loop $l (br $l)) (i32.const 0)");
    let limits = Limits { wall: Duration::from_secs(20), cpu: Duration::from_secs(20), ..Limits::default() };
    let spinners: Vec<_> = (0..8).map(|_| bench.component(&spin, limits.clone(), Grants::default()).unwrap()).collect();
    let fine = bench.component(&body_component(&text_result("1024", "2")), tight(), Grants::default()).unwrap();
    bench.runtime.block_on(async {
        let spinning: Vec<_> = spinners.iter().map(|tool| tokio::spawn(call(tool.clone(), json!({})))).collect();
        let mut times = Vec::new();
        let began = Instant::now();
        // For a second, so that all eight run meanwhile.
        while began.elapsed() < Duration::from_secs(1) {
            let started = Instant::now();
            let called = call(fine.clone(), json!({})).await;
            assert!(called.result.is_ok(), "{called:?}");
            times.push(started.elapsed());
        }
        times.sort_unstable();
        // Guests share the processors with each other, but a call's turn comes: far from the twenty seconds of a spinner.
        let (middle, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        assert!(middle < Duration::from_millis(250) && slowest < Duration::from_secs(2), "{middle:?} {slowest:?}");
        // A timer of those who serve is on time as well.
        let started = Instant::now();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert!(spinning.iter().all(|task| !task.is_finished()), "they spin all the while");
        // Going away ends them.
        spinning.iter().for_each(tokio::task::JoinHandle::abort);
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let started = Instant::now();
        assert!(bench.call(&fine, "t", json!({})).result.is_ok());
        if started.elapsed() < Duration::from_millis(50) {
            break;
        }
        assert!(Instant::now() < deadline, "the spinners were not ended");
    }
}

#[test]
fn a_caller_that_goes_away_ends_the_call() {
    let bench = Bench::new(Settings { threads: 1, queue: 1, ..Settings::default() });
    let spin = body_component("(loop $l (br $l)) (i32.const 0)");
    let spin = bench
        .component(&spin, Limits { cpu: Duration::from_secs(20), ..Limits::default() }, Grants::default())
        .unwrap();
    let fine =
        bench.component(&body_component(&text_result("1024", "2")), Limits::default(), Grants::default()).unwrap();
    bench.runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(50), call(spin, json!({}))).await;
        // The only thread is free again.
        let called = tokio::time::timeout(Duration::from_secs(5), call(fine, json!({}))).await.unwrap();
        assert!(called.result.is_ok(), "{called:?}");
    });
}

#[test]
fn a_function_that_cannot_be_used_costs_itself_and_a_server_without_any_does_not_load() {
    let bench = Bench::new(Settings::default());
    let listing = |tools: &str| {
        let answer = format!("{{\"tools\":[{tools}]}}");
        let module = core_module(&format!("(i64.const {})", 1024_u64 << 32 | answer.len() as u64));
        module.replace("(memory", &format!("(data (i32.const 1024) \"{}\") (memory", answer.replace('"', "\\22")))
    };
    let load = |tools: &str| bench.load(Kind::Core, &listing(tools), Limits::default(), Grants::default());
    assert!(load(r#"{"name":"a"}"#).is_ok());
    let deep = format!(r#"{{"name":"a","inputSchema":{}{{}}{}}}"#, r#"{"not":"#.repeat(80), "}".repeat(80));
    for (tools, why) in [
        (r#"{"name":""}"#, "no name"),
        (r#"{"name":"../x"}"#, "no name"),
        (r#"{"name":"a","inputSchema":{"required":"a"}}"#, "not valid"),
        (deep.as_str(), "nested"),
        (r#""#, "it has no functions"),
    ] {
        let error = load(tools).unwrap_err();
        assert!(chain(&error).contains(why), "{tools}: {}", chain(&error));
        if !tools.is_empty() {
            let both = load(&format!(r#"{{"name":"fine"}},{tools}"#)).unwrap();
            let names: Vec<_> = both.definitions().iter().map(|function| function.name.clone()).collect();
            assert_eq!(names, ["fine"], "{tools}");
            assert!(both.remarks()[0].to_string().contains(why), "{tools}: {:?}", both.remarks());
        }
    }
    let twice = load(r#"{"name":"a"},{"name":"a"}"#).unwrap();
    assert_eq!(twice.definitions().len(), 1);
    assert!(twice.remarks()[0].to_string().contains("two of this name"), "{:?}", twice.remarks());
    let odd = load(r#"{"name":"a","inputSchema":{"pattern":"(((a{100}){100}){100}){100}"}}"#).unwrap();
    assert!(odd.remarks()[0].to_string().contains("not checked here"), "{:?}", odd.remarks());
}

#[test]
fn a_scratch_folder_has_a_quota() {
    let parent = tempfile::tempdir().unwrap();
    let quota = Quota { bytes: 1 << 20, files: 64 };
    let bench = Bench::new(Settings { scratch: parent.path().to_owned(), quota, ..Settings::default() });
    let grants = Grants { scratch: true, ..Grants::default() };
    // Bytes without end into one file; the same into one that is removed first; files without end.
    for (name, guest) in [("bytes", filler(false)), ("removed", filler(true)), ("files", sower())] {
        let limits = Limits { wall: Duration::from_secs(20), cpu: Duration::from_secs(20), ..Limits::default() };
        let tool = bench.load(Kind::Command, &guest, limits, grants.clone()).unwrap();
        let called = bench.call(&tool, "t", json!({}));
        assert_eq!(
            called.result,
            Err(CallError::ScratchFull { bytes: 1 << 20, files: 64 }),
            "{name}: {:?}",
            called.report
        );
        assert_eq!(called.report.ended, Ended::Limit);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "{name}: nothing of it is left");
    }
}

#[test]
fn descriptors_are_capped() {
    let bench = Bench::new(Settings::default());
    let grants = Grants { scratch: true, ..Grants::default() };
    let tool = bench.load(Kind::Command, &opener(), Limits::default(), grants).unwrap();
    let called = bench.call(&tool, "t", json!({}));
    assert!(matches!(called.result, Err(CallError::TooManyOpen { .. })), "{called:?}");
}

#[test]
fn all_instances_together_have_a_memory_budget() {
    let bench = Bench::new(Settings { total_memory_bytes: 24 << 20, ..Settings::default() });
    // Takes 16 MiB and holds them until it is stopped.
    let hold =
        "(loop $g (br_if $g (i32.eq (memory.grow (i32.const 256)) (i32.const -1)))) (loop $l (br $l)) (i32.const 0)";
    let limits = Limits { wall: Duration::from_secs(20), cpu: Duration::from_secs(20), ..Limits::default() };
    let holder = bench.component(&body_component(hold), limits.clone(), Grants::default()).unwrap();
    let grow = "(if (i32.eq (memory.grow (i32.const 256)) (i32.const -1)) (then unreachable))";
    let wants = format!("{grow} {}", text_result("1024", "2"));
    let wants = bench.component(&body_component(&wants), limits, Grants::default()).unwrap();
    assert!(bench.call(&wants, "t", json!({})).result.is_ok(), "alone it has enough");
    bench.runtime.block_on(async {
        let holding = tokio::spawn(call(holder, json!({})));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let called = call(wants.clone(), json!({})).await;
            match called.result {
                Err(CallError::Busy { what }) => break assert!(what.contains("have together"), "{what}"),
                Ok(_) => assert!(Instant::now() < deadline, "both had it"),
                other => panic!("{other:?}"),
            }
        }
        holding.abort();
        let deadline = Instant::now() + Duration::from_secs(10);
        while call(wants.clone(), json!({})).await.result.is_err() {
            assert!(Instant::now() < deadline, "what was held did not come back");
        }
    });
}

#[test]
fn no_limit_is_above_the_operator_s_ceiling() {
    let ceiling = Limits { memory_bytes: 1 << 20, cpu: Duration::from_millis(50), ..Limits::ceiling() };
    let bench = Bench::new(Settings { ceiling, ..Settings::default() });
    let wide = Limits { memory_bytes: 1 << 30, cpu: Duration::from_secs(600), ..Limits::default() };
    let spin = bench.component(&body_component("(loop $l (br $l)) (i32.const 0)"), wide, Grants::default()).unwrap();
    assert_eq!((spin.limits().memory_bytes, spin.limits().cpu), (1 << 20, Duration::from_millis(50)));
    let remarks: Vec<String> = spin.remarks().iter().map(ToString::to_string).collect();
    assert!(remarks.len() == 2 && remarks[0].contains("`memory_bytes` is 1073741824"), "{remarks:?}");
    let called = bench.call(&spin, "t", json!({}));
    assert_eq!(called.result, Err(CallError::CpuSpent { limit: Duration::from_millis(50) }));
}
