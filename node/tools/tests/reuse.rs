//! A kept instance is a grant: what it keeps, when it ends, and that everything else of a call begins anew.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_tools::{CallContext, CallError, Grants, Kind, Limits, SandboxedTool, Settings, Tool};
use common::*;
use serde_json::json;
use std::time::{Duration, Instant};

fn reused() -> Grants {
    Grants { reuse: true, ..Grants::default() }
}

/// A tool that counts its calls in a global, does something at the second, and answers with the count's digit.
fn counter(at_the_second: &str) -> String {
    let body = format!(
        "(global.set $g (i32.add (global.get $g) (i32.const 1)))
         (i32.store8 (i32.const 40000) (i32.add (i32.const 48) (global.get $g)))
         (if (i32.eq (global.get $g) (i32.const 2)) (then {at_the_second}))
         {}",
        text_result("40000", "1")
    );
    body_component(&body)
}

fn says(bench: &Bench, tool: &SandboxedTool) -> Result<String, CallError> {
    bench.call(tool, "t", json!({})).result.map(|result| result.text())
}

#[test]
fn an_instance_is_kept_only_where_that_is_granted() {
    let bench = Bench::new(Settings::default());
    let fresh = bench.component(&counter(""), Limits::default(), Grants::default()).unwrap();
    let kept = bench.component(&counter(""), Limits::default(), reused()).unwrap();
    for call in 1..=5 {
        assert_eq!(says(&bench, &fresh), Ok("1".into()));
        assert_eq!(says(&bench, &kept), Ok(call.to_string()));
    }
    // The same module loaded once more, as another workspace would, finds nothing of it.
    let other = bench.component(&counter(""), Limits::default(), reused()).unwrap();
    assert_eq!(says(&bench, &other), Ok("1".into()));
    assert_eq!(kept.grants().described(), ["reuse"]);
}

#[test]
fn an_instance_that_did_not_end_well_is_not_kept() {
    let bench = Bench::new(Settings::default());
    let tight = Limits { cpu: Duration::from_millis(100), wall: Duration::from_secs(5), ..Limits::default() };
    for (what, at_the_second) in [
        ("a trap", "unreachable"),
        ("a loop", "(loop $l (br $l))"),
        ("a result outside of its memory", "(return (i32.const 0x7fffff00))"),
    ] {
        let tool = bench.component(&counter(at_the_second), tight.clone(), reused()).unwrap();
        for _ in 0..2 {
            assert_eq!(says(&bench, &tool), Ok("1".into()), "{what}");
            let failed = says(&bench, &tool);
            assert!(
                matches!(failed, Err(CallError::Trapped { .. } | CallError::CpuSpent { .. })),
                "{what}: {failed:?}"
            );
        }
    }
    // One that took much memory is not kept either: it would be held while nobody uses it.
    let greedy = counter("").replace(
        "(i32.add (global.get $g) (i32.const 1))",
        "(i32.add (global.get $g) (i32.add (i32.const 1) (i32.mul (i32.const 0) (memory.grow (i32.const 300)))))",
    );
    let tool = bench.component(&greedy, Limits::default(), reused()).unwrap();
    assert_eq!((says(&bench, &tool), says(&bench, &tool)), (Ok("1".into()), Ok("1".into())));
}

#[test]
fn the_limits_of_a_call_begin_anew() {
    let bench = Bench::new(Settings::default());
    // Each call computes for some time: together more than one may, alone less.
    let busy = counter("").replace(
        "(global.set $g",
        "(local.set 0 (i32.const 30000000)) (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (global.set $g",
    );
    let unlimited = bench.component(&busy, Limits::default(), reused()).unwrap();
    let alone = (0..3).map(|_| bench.call(&unlimited, "t", json!({})).report.cpu).max().unwrap();
    let limits = Limits { cpu: alone * 4 + Duration::from_millis(50), ..Limits::default() };
    let tool = bench.component(&busy, limits, reused()).unwrap();
    for call in 1..=9 {
        assert_eq!(says(&bench, &tool), Ok(call.to_string()));
    }
    // The deadline of one caller is not the next one's.
    let late = CallContext { deadline: Some(Instant::now() + Duration::from_millis(300)), ..CallContext::default() };
    let endless = bench.component(&counter("(loop $l (br $l))"), Limits::default(), reused()).unwrap();
    assert_eq!(says(&bench, &endless), Ok("1".into()));
    let called = bench.runtime.block_on(endless.call("t", json!({}), late));
    assert!(matches!(called.result, Err(CallError::TimedOut { .. })), "{called:?}");
    assert_eq!(says(&bench, &endless), Ok("1".into()));
}

#[test]
fn few_are_kept_and_those_of_a_tool_go_with_it() {
    let bench = Bench::new(Settings { kept_instances: 1, ..Settings::default() });
    let (a, b) = (
        bench.component(&counter(""), Limits::default(), reused()).unwrap(),
        bench.component(&counter(""), Limits::default(), reused()).unwrap(),
    );
    assert_eq!((says(&bench, &a), says(&bench, &a)), (Ok("1".into()), Ok("2".into())));
    // The other tool's takes the only place.
    assert_eq!((says(&bench, &b), says(&bench, &a)), (Ok("1".into()), Ok("1".into())));
    drop(a);
    assert_eq!((says(&bench, &b), says(&bench, &b)), (Ok("1".into()), Ok("2".into())));
    // None at all, where the operator keeps none.
    let bench = Bench::new(Settings { kept_instances: 0, ..Settings::default() });
    let tool = bench.component(&counter(""), Limits::default(), reused()).unwrap();
    assert_eq!((says(&bench, &tool), says(&bench, &tool)), (Ok("1".into()), Ok("1".into())));
}

#[test]
fn calls_at_once_have_an_instance_each() {
    let bench = Bench::new(Settings { threads: 8, kept_instances: 2, ..Settings::default() });
    let tool = bench.component(&body_component(&text_result("1024", "1")), Limits::default(), reused()).unwrap();
    bench.runtime.block_on(async {
        let calls: Vec<_> = (0..200).map(|_| tokio::spawn(call(tool.clone(), json!({})))).collect();
        let mut answered = 0;
        for task in calls {
            match task.await.unwrap().result {
                Ok(_) => answered += 1,
                Err(error) => assert!(matches!(error, CallError::Busy { .. }), "{error}"),
            }
        }
        assert!(answered >= 100, "{answered}");
    });
}

#[test]
fn what_cannot_be_kept_does_not_load_with_the_grant() {
    let bench = Bench::new(Settings::default());
    let wasi = "(component (import \"wasi:clocks/wall-clock@0.2.0\" (instance)))";
    let error = bench.load(Kind::Component, wasi, Limits::default(), reused()).unwrap_err();
    assert!(chain(&error).contains("imports WASI"), "{}", chain(&error));
    for (kind, wat) in [(Kind::Command, snooper()), (Kind::Core, core_module("(i64.const 0)"))] {
        let error = bench.load(kind, &wat, Limits::default(), reused()).unwrap_err();
        assert!(chain(&error).contains("anew for each call"), "{}", chain(&error));
    }
}
