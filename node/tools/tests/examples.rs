//! The example tools do what their descriptions say, one into the next as the demo uses them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use caxton_tools::{CallContext, CallError, Content, Ended, Grants, Kind, Limits, Settings, Tool, examples};
use common::*;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SALES: &str =
    "month,region,revenue\nJan,north,120.5\nJan,south,80\nFeb,north,99.5\nFeb,south,\"1,000\"\nFeb,,10\n";

fn answer(bench: &Bench, wasm: &[u8], function: &str, arguments: Value) -> Value {
    let tool = bench.load_bytes(Kind::Component, wasm, Limits::default(), Grants::default()).unwrap();
    let called = bench.call(&tool, function, arguments);
    let result = called.result.unwrap();
    assert!(!result.is_error, "{result:?}");
    result.structured.unwrap()
}

#[test]
fn csv_becomes_a_chart() {
    let bench = Bench::new(Settings::default());
    let table = answer(&bench, examples::CSV_READER, "csv-reader", json!({ "text": SALES }));
    assert_eq!(table["columns"], json!(["month", "region", "revenue"]));
    // "1,000" is no number, so the column is text; stats takes what is one.
    assert_eq!(table["types"], json!(["string", "string", "string"]));
    assert_eq!(table["row_count"], 5);
    let groups = answer(
        &bench,
        examples::STATS,
        "group-by",
        json!({ "columns": table["columns"], "rows": table["rows"], "by": "month", "value": "revenue" }),
    );
    assert_eq!(groups["labels"], json!(["Jan", "Feb"]));
    assert_eq!(groups["values"], json!([200.5, 109.5]));
    let chart = answer(
        &bench,
        examples::CHART_GENERATOR,
        "chart-generator",
        json!({ "title": "Revenue <by> month", "labels": groups["labels"], "values": groups["values"] }),
    );
    let svg = chart["svg"].as_str().unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("Revenue &lt;by&gt; month") && svg.contains("Jan: 200.5"), "{svg}");
}

#[test]
fn values_keep_their_types() {
    let bench = Bench::new(Settings::default());
    let text = "id;ok;n;zip;note\r\n1;true;1.5;00501;\"a \"\"b\"\"\nc\"\r\n2;false;-3;10001;\r\n";
    let table = answer(&bench, examples::CSV_READER, "csv-reader", json!({ "text": text }));
    assert_eq!(table["types"], json!(["integer", "boolean", "number", "string", "string"]));
    assert_eq!(table["rows"], json!([[1, true, 1.5, "00501", "a \"b\"\nc"], [2, false, -3.0, "10001", null]]));
    let described =
        answer(&bench, examples::STATS, "describe", json!({ "columns": ["x"], "rows": [[1], [2], [3], [10], [null]] }));
    let column = &described["columns"][0];
    assert_eq!((&column["mean"], &column["median"], &column["empty"]), (&json!(4.0), &json!(2.5), &json!(1)));
}

#[test]
fn a_chart_is_also_a_picture() {
    let bench = Bench::new(Settings::default());
    let limits = Limits::default();
    let tool = bench.load_bytes(Kind::Component, examples::CHART_GENERATOR, limits, Grants::default()).unwrap();
    let series = json!([{ "name": "a", "values": [1, null, 3] }, { "name": "b", "values": [-2, 5.25, 0] }]);
    for kind in ["line", "bar"] {
        let called =
            bench.call(&tool, "chart-generator", json!({ "kind": kind, "labels": ["x", "y", 3], "series": series }));
        let result = called.result.unwrap();
        let picture = result.content.iter().find_map(|content| match content {
            Content::Image { mime, data } => Some((mime.clone(), String::from_utf8(data.clone()).unwrap())),
            _ => None,
        });
        let (mime, svg) = picture.unwrap();
        assert_eq!(mime, "image/svg+xml");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    let called = bench.call(&tool, "chart-generator", json!({ "labels": ["a"], "values": [1, 2] }));
    let result = called.result.unwrap();
    assert!(result.is_error && result.text().contains("2 values for 1 labels"), "{result:?}");
    assert_eq!(called.report.ended, Ended::ToolError);
}

#[test]
fn arguments_that_do_not_fit_never_reach_the_tool() {
    let bench = Bench::new(Settings::default());
    let tool = bench.load_bytes(Kind::Component, examples::CSV_READER, Limits::default(), Grants::default()).unwrap();
    let called = bench.call(&tool, "csv-reader", json!({ "txt": 1 }));
    let Err(CallError::InvalidArguments { problems }) = called.result else { panic!("{called:?}") };
    assert_eq!(problems, ["the arguments lack `text`", "`txt` is not expected"]);
    assert_eq!((called.report.ended, called.report.memory_bytes), (Ended::Refused, 0));
    let called = bench.call(&tool, "csv-writer", json!({}));
    assert!(matches!(called.result, Err(CallError::UnknownTool { .. })), "{called:?}");
}

/// A server that answers each connection with one of the given responses, in turn.
async fn server(responses: Vec<String>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for response in responses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(response.replace("PORT", &port.to_string()).as_bytes()).await;
        }
    });
    port
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[test]
fn a_fetch_reaches_what_is_granted_and_nothing_else() {
    let closed = Bench::new(Settings::default());
    let open = Bench::new(Settings { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Settings::default() });
    let responses = vec![
        ok("hello"),
        to("http://localhost:PORT/next"),
        ok("redirected"),
        to("http://169.254.169.254/latest/meta-data"),
        to("http://2130706433:PORT/"),
        to("http://evil.example:PORT/"),
    ];
    let responses = responses.into_iter().chain((0..6).map(|_| to("/again"))).collect();
    let port = open.runtime.block_on(server(responses));
    let grants = || Grants {
        http: vec![
            format!("localhost:{port}").parse().unwrap(),
            format!("127.0.0.1:{port}").parse().unwrap(),
            "169.254.169.254".parse().unwrap(),
        ],
        ..Grants::default()
    };
    let limits = || Limits { wall: Duration::from_secs(20), ..Limits::default() };
    let refused = closed.load_bytes(Kind::Component, examples::HTTP_FETCH, limits(), Grants::default()).err().unwrap();
    assert!(chain(&refused).contains("is not granted"), "{}", chain(&refused));

    let fetch = |bench: &Bench, url: String| {
        let tool = bench.load_bytes(Kind::Component, examples::HTTP_FETCH, limits(), grants()).unwrap();
        let called = bench.call(&tool, "http-fetch", json!({ "url": url }));
        let result = called.result.unwrap();
        (result.is_error, result.text())
    };
    // A name that leads to a private address is refused on a node that opens no network, granted or not.
    let (failed, text) = fetch(&closed, format!("http://localhost:{port}/"));
    assert!(failed && text.contains("loopback"), "{text}");
    let (failed, text) = fetch(&closed, format!("http://127.0.0.1:{port}/"));
    assert!(failed && text.contains("loopback"), "{text}");

    assert_eq!(fetch(&open, format!("http://localhost:{port}/")), (false, "hello".into()));
    assert_eq!(fetch(&open, format!("http://127.0.0.1:{port}/")), (false, "redirected".into()));
    for why in ["link-local", "hides its address", "no grant", "redirects"] {
        let (failed, text) = fetch(&open, format!("http://127.0.0.1:{port}/"));
        assert!(failed && text.contains(why), "{why}: {text}");
    }
    let (failed, text) = fetch(&open, "https://example.com/".into());
    assert!(failed && text.contains("no grant"), "{text}");
}

#[test]
fn a_fetch_ends_with_the_call() {
    let bench = Bench::new(Settings { networks: vec!["127.0.0.1".parse().unwrap()], ..Settings::default() });
    let (listener, port) = bench.runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    });
    let grants = Grants { http: vec![format!("127.0.0.1:{port}").parse().unwrap()], ..Grants::default() };
    let limits = Limits { wall: Duration::from_millis(200), ..Limits::default() };
    let tool = bench.load_bytes(Kind::Component, examples::HTTP_FETCH, limits, grants).unwrap();
    let called = bench.call(&tool, "http-fetch", json!({ "url": format!("http://127.0.0.1:{port}/") }));
    assert!(matches!(called.result, Err(CallError::TimedOut { .. })), "{called:?}");
    drop(listener);
}

#[test]
fn definitions_are_what_the_server_says() {
    let bench = Bench::new(Settings::default());
    let tool = bench.load_bytes(Kind::Component, examples::STATS, Limits::default(), Grants::default()).unwrap();
    let definitions = tool.definitions();
    let names: Vec<&str> = definitions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["describe", "group-by"]);
    let here = tool.call_here("describe", json!({ "columns": ["x"], "rows": [[1]] }), CallContext::default());
    assert!(here.result.is_ok(), "{here:?}");
}

#[test]
fn a_command_in_c_answers() {
    let bench = Bench::new(Settings::default());
    let tool = bench.load_bytes(Kind::Command, examples::CHECKSUM, Limits::default(), Grants::default()).unwrap();
    let call = |arguments| bench.call(&tool, "checksum", arguments).result;
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let structured = call(json!({ "text": "abc" })).unwrap().structured.unwrap();
    assert_eq!(structured, json!({ "algorithm": "sha256", "hex": sha256, "bytes": 3 }));
    // Characters that JSON escapes, a pair of surrogates, and more than one block.
    let long = call(json!({ "text": format!("\"\\\n\u{1f600}{}", "é".repeat(500)), "algorithm": "crc32" })).unwrap();
    assert_eq!(long.structured.unwrap()["bytes"], 1007);
    assert!(matches!(call(json!({ "text": 1 })), Err(CallError::InvalidArguments { .. })));
    assert!(matches!(call(json!({ "text": "", "algorithm": "md5" })), Err(CallError::InvalidArguments { .. })));
}
