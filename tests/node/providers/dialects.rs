//! Dialects: what a provider refuses it is not sent again, and what is set in caxton.toml holds from the first request.

use super::*;

pub(super) fn answer(asked: &Question) -> Option<Response> {
    let body = &asked.body;
    let has = |name: &str| body.get(name).is_some();
    let refusal = match asked.quirk.as_str() {
        "notools" | "notools-set" | "notools-own" if has("tools") => Some((400, "this model takes no tools")),
        "notools-404" if has("tools") => Some((404, "No endpoints found that support tool use.")),
        "newname" | "newname-set" if has("max_tokens") => {
            Some((400, "max_tokens is not taken by this model, send max_completion_tokens"))
        }
        "oldname" if has("max_completion_tokens") => {
            Some((422, "Extra inputs are not permitted: max_completion_tokens"))
        }
        "toolarge" if body["max_tokens"].as_u64().is_some_and(|most| most > 4_096) => Some((
            400,
            "max_tokens is too large: 100000. This model supports at most 4096 completion tokens, whereas you provided 100000.",
        )),
        "nousage" if has("stream_options") => Some((400, "Unrecognized request argument supplied: stream_options")),
        "notemperature" if has("temperature") => Some((
            400,
            "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported.",
        )),
        "nosystem" if asked.of_role("system").count() > 0 => Some((400, "System role not supported")),
        "onesystem" if !one_system(asked) => Some((400, "only one system message, and only at the start")),
        "nostream" if body["stream"] == true => Some((400, "stream is not supported by this model")),
        "nonull" if asked.messages().iter().any(|message| message["content"].is_null()) => {
            Some((400, "messages.2.content: invalid type: null, expected a string"))
        }
        "shortids" if !asked.of_role("tool").all(|result| is_short(&result["tool_call_id"])) => {
            Some((400, "Tool call id was call_2_0 but must be a-z, A-Z, 0-9, with a length of 9."))
        }
        "needsthought"
            if asked
                .of_role("assistant")
                .any(|said| said["tool_calls"].is_array() && said.get("reasoning_content").is_none()) =>
        {
            Some((400, "Missing `reasoning_content` field in the assistant message"))
        }
        "everything" => everything(asked),
        "strict" | "strict-names" => strict(body),
        _ => None,
    };
    if let Some((status, message)) = refusal {
        return Some(refuse(status, message));
    }
    let calls = ["nonull", "shortids", "needsthought", "strict-names"];
    Some(match asked.quirk.as_str() {
        "nostream" => {
            let message = json!({ "role": "assistant", "content": "whole" });
            axum::Json(json!({ "choices": [{ "message": message, "finish_reason": "stop" }] })).into_response()
        }
        quirk if calls.contains(&quirk) && asked.results() > 0 => say(asked.messages().last()?["content"].as_str()?),
        quirk if calls.contains(&quirk) => call(&[
            json!({ "index": 0, "id": "c", "function": { "name": asked.tool(), "arguments": asked.arguments(0) } }),
        ]),
        _ => return None,
    })
}

fn one_system(asked: &Question) -> bool {
    let at = asked.messages().iter().enumerate().filter(|(_, message)| message["role"] == "system").map(|(at, _)| at);
    at.collect::<Vec<_>>().iter().all(|at| *at == 0)
}

fn is_short(id: &Value) -> bool {
    id.as_str().is_some_and(|id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Refuses one thing after the other.
fn everything(asked: &Question) -> Option<(u16, &'static str)> {
    let body = &asked.body;
    if body.get("max_tokens").is_some() {
        return Some((400, "use max_completion_tokens instead of max_tokens"));
    }
    if body.get("stream_options").is_some() {
        return Some((400, "unknown field stream_options"));
    }
    if body.get("temperature").is_some() {
        return Some((400, "temperature is not supported"));
    }
    body.get("tools").map(|_| (400, "tools are not supported"))
}

/// The check of tools that OpenAI makes.
fn strict(body: &Value) -> Option<(u16, &'static str)> {
    for tool in body["tools"].as_array().into_iter().flatten() {
        let (function, parameters) = (&tool["function"], &tool["function"]["parameters"]);
        let name = function["name"].as_str().unwrap_or_default();
        if !(1..=64).contains(&name.len())
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        {
            return Some((400, "Invalid 'tools[0].function.name': string does not match pattern '^[a-zA-Z0-9_-]+$'"));
        }
        if parameters["type"] != "object" || !parameters["properties"].is_object() {
            return Some((400, "Invalid schema for function: an object schema without properties"));
        }
        if ["anyOf", "oneOf", "allOf", "enum", "not"].iter().any(|word| parameters.get(*word).is_some()) {
            return Some((400, "Invalid schema for function: no oneOf, anyOf, allOf, enum or not at the top"));
        }
    }
    None
}

/// A tool whose schema chooses at its top, which a core module cannot have; a WASI command that speaks MCP can.
fn odd_tool() -> Vec<u8> {
    let schema = r#"{\22type\22:\22object\22,\22oneOf\22:[{\22properties\22:{\22a\22:{\22type\22:\22object\22}},\22required\22:[\22a\22]},{\22properties\22:{\22b\22:{}}}]}"#;
    let answer = format!(
        r#"{{\22jsonrpc\22:\222.0\22,\22id\22:2,\22result\22:{{\22tools\22:[{{\22name\22:\22look_up\22,\22inputSchema\22:{schema}}}],\22content\22:[{{\22type\22:\22text\22,\22text\22:\22found\22}}]}}}}\0a"#
    );
    let bytes = answer.replace(r"\22", "\"").replace(r"\0a", "\n").len();
    let module = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 64) "{answer}")
          (func (export "_start")
            (i32.store (i32.const 0) (i32.const 64))
            (i32.store (i32.const 4) (i32.const {bytes}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#
    );
    wat::parse_str(module).expect("a module")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_once_is_not_sent_again() {
    let lab = Lab::start().await;
    let limit = "max_tokens = 500";
    // With each the number of requests that the first answer takes.
    let quirks = [
        ("notools", "", "", 2),
        ("notools-404", "", "", 2),
        ("newname", "", limit, 2),
        ("toolarge", "", "max_tokens = 100000", 2),
        ("nousage", "", "", 2),
        ("notemperature", "", "temperature = 0.3", 2),
        ("nosystem", "", "", 2),
        ("nostream", "", "", 2),
        ("everything", "", "max_tokens = 500\ntemperature = 0.3", 5),
    ];
    let bench = bench(&lab, &quirks.map(|(quirk, provider, agent, _)| (quirk, provider, agent))).await;
    for (quirk, _, _, requests) in quirks {
        let first = bench.answer_of(quirk).await;
        assert!(["ok", "whole"].contains(&first.as_str()), "{quirk}: {first}");
        assert_eq!(lab.asked(quirk).len(), requests, "{quirk} learns");
        bench.answer_of(quirk).await;
        assert_eq!(lab.asked(quirk).len(), requests + 1, "{quirk} remembers");
    }
    let last = |quirk: &str| lab.asked(quirk).last().expect("asked").body.clone();
    assert_eq!(last("newname")["max_completion_tokens"], 500);
    assert_eq!(last("toolarge")["max_tokens"], 4_096);
    assert_eq!(last("nosystem")["messages"][0]["role"], "user");
    assert!(
        last("nosystem")["messages"][0]["content"].as_str().is_some_and(|text| text.contains("You test nosystem."))
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_earlier_calls_is_learnt_as_well() {
    let lab = Lab::start().await;
    let quirks = ["nonull", "shortids", "needsthought"];
    let bench = bench(&lab, &quirks.map(|quirk| (quirk, "", ""))).await;
    for quirk in quirks {
        bench.answer_of(quirk).await;
        assert_eq!(lab.asked(quirk).len(), 3, "{quirk}: a call, a refusal, an answer");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_holds_from_the_first_request() {
    let lab = Lab::start().await;
    let dialect = |quirk: &str, set: &str| format!("[providers.{quirk}.dialect]\n{set}");
    let settings = [
        ("notools-set", dialect("notools-set", "tools = false"), ""),
        ("newname-set", dialect("newname-set", "tokens_field = \"max_completion_tokens\""), "max_tokens = 500"),
        ("oldname", dialect("oldname", "tokens_field = \"max_tokens\""), "max_tokens = 500"),
        ("header", format!("api_key = \"secret:LAB_KEY\"\n{}", dialect("header", "key_header = \"api-key\"")), ""),
    ];
    let bench = Bench::new(&[]).await;
    bench.set_secret("LAB_KEY", "key-1").await;
    let content =
        lab.workspace(&settings.each_ref().map(|(quirk, provider, agent)| (*quirk, provider.as_str(), *agent)));
    bench.deploy(&content, 0, &Content::default(), "first").await;
    for (quirk, ..) in &settings {
        assert_eq!(bench.answer_of(quirk).await, "ok", "{quirk}");
        assert_eq!(lab.asked(quirk).len(), 1, "{quirk}");
    }
    let headers = &lab.asked("header")[0].headers;
    assert_eq!((headers["api-key"].to_str().ok(), headers.get("authorization")), (Some("key-1"), None));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_tools_does_not_pretend_to_have_none() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("notools-own", "", OWN_TOOL)]).await;
    let failure = bench.failure_of("notools-own").await;
    assert!(failure.contains("takes no tools, and the agent has some"), "{failure}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_system_message_stands_at_the_start() {
    let lab = Lab::start().await;
    let bench = bench(&lab, &[("onesystem", "", "")]).await;
    assert_eq!(bench.answer_of("onesystem").await, "ok");
    let said = json!({ "model": "demo/m-onesystem", "messages": [
        { "role": "system", "content": "You are brief." }, { "role": "user", "content": "hi" }] });
    let (status, body) = read(bench.request(Method::POST, "/v1/chat/completions").json(&said)).await;
    assert_eq!(
        (status, body.pointer("/choices/0/message/content").and_then(Value::as_str)),
        (200, Some("ok")),
        "{body}"
    );
    for asked in lab.asked("onesystem") {
        assert!(one_system(&asked));
    }
    let first = lab.asked("onesystem").pop().expect("asked").messages()[0].clone();
    let text = first["content"].as_str().expect("text").to_owned();
    assert!(text.contains("You test onesystem.") && text.contains("You are brief."), "{text}");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_written_as_they_are_taken() {
    let lab = Lab::start().await;
    let bench = Bench::new(&[]).await;
    let own = "[tools]\nrequired = [\"odd\"]";
    let tool = "[tool]\nname = \"odd\"\nkind = \"command\"\nmodule = \"odd.wasm\"\n";
    let content = lab.workspace(&[("strict", "", ""), ("strict-names", "", own)]);
    let content = content.file("tools/odd/tool.toml", tool).file("tools/odd/odd.wasm", odd_tool());
    bench.deploy(&content, 0, &Content::default(), "first").await;
    assert_eq!(bench.answer_of("strict").await, "ok");
    assert_eq!(bench.answer_of("strict-names").await, "found");
    let asked = lab.asked("strict-names");
    assert_eq!(asked.len(), 2, "nothing is refused");
    assert!(asked[0].tools().contains(&"look_up".to_owned()), "{:?}", asked[0].tools());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_that_is_none_is_found_at_deploy() {
    let lab = Lab::start().await;
    let bench = Bench::new(&[]).await;
    let dialect = "[providers.x.dialect]\nsytem = \"one\"\nsystem = \"none\"\ntools = \"no\"\nkey_header = \"a b\"";
    let content = lab.workspace(&[("x", dialect, "")]);
    bench.send(&content).await;
    let request = content.request(0, &Content::default(), "first");
    let problem = crate::bench::refused(bench.post("/deployments", &request), 422, "check_failed").await;
    let found = problem["diagnostics"].as_array().expect("diagnostics").iter();
    let found: Vec<(&str, u64)> = found
        .map(|one| (one["code"].as_str().unwrap_or_default(), one["place"]["line"].as_u64().unwrap_or(0)))
        .collect();
    assert_eq!(found, [("unknown_key", 8), ("bad_value", 9), ("wrong_type", 10), ("bad_value", 11)], "{problem}");
    bench.stop().await;
}
