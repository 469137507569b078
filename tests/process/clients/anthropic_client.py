"""Talks to a node with Anthropic's own Python client, as somebody's program would: BASE_URL and TOKEN are the arguments."""

import json
import sys
import urllib.request

import anthropic

base, token = sys.argv[1], sys.argv[2]
client = anthropic.Anthropic(base_url=base, api_key=token, max_retries=2)
said = [{"role": "user", "content": "Draw a chart of sales by quarter"}]


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def turns():
    request = urllib.request.Request(f"{base}/api/v1/workspaces/demo/conversations?limit=500", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return sum(row["turns"] for row in json.load(answer)["conversations"])


# By capability, whole.
whole = client.messages.create(model="auto", max_tokens=500, messages=said)
text = whole.content[0].text
assert "Send me a file" in text, text
same((whole.type, whole.role, whole.stop_reason), ("message", "assistant", "end_turn"))
assert whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0, whole.usage

# To one agent, streamed: the helper checks the order of the events.
with client.messages.stream(model="demo/data-analyzer", max_tokens=500, messages=said, system="Be brief.") as stream:
    same("".join(stream.text_stream), text)
    last = stream.get_final_message()
same((last.content[0].text, last.stop_reason), (text, "end_turn"))
assert last.usage.output_tokens > 0, last.usage

# The program's own tool, whole and streamed.
tools = [{"name": "get_weather", "description": "The weather", "input_schema": {"type": "object", "properties": {}}}]
asked = [{"role": "user", "content": "How is the weather?"}]
turn = client.messages.create(model="demo/talker", max_tokens=500, messages=asked, tools=tools)
same(turn.stop_reason, "tool_use")
call = turn.content[-1]
same((call.type, call.name, call.input), ("tool_use", "get_weather", {"city": "Oslo"}))
with client.messages.stream(model="demo/talker", max_tokens=500, messages=asked, tools=tools) as stream:
    streamed = stream.get_final_message()
same((streamed.content[-1].name, streamed.content[-1].input), ("get_weather", {"city": "Oslo"}))
result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": '{"degrees": 7}'}]}
answered = [*asked, {"role": "assistant", "content": turn.content}, {"role": "user", "content": [result]}]
final = client.messages.create(model="demo/talker", max_tokens=500, messages=answered, tools=tools)
same(final.content[0].text, "In Oslo it is 7 degrees.")

# One key, one turn.
key = {"Idempotency-Key": "anthropic-1"}
first = client.messages.create(model="auto", max_tokens=500, messages=said, extra_headers=key)
again = client.messages.create(model="auto", max_tokens=500, messages=said, extra_headers=key)
same(first.model_extra["caxton"]["turn"], again.model_extra["caxton"]["turn"])

# Errors are the client's own kinds, and a turn that failed is not begun again.
for kwargs, token_, kind in [
    ({"model": "demo/nobody"}, token, anthropic.NotFoundError),
    ({"model": "auto"}, "wrong", anthropic.AuthenticationError),
    ({"model": "demo/talker", "thinking": {"type": "enabled", "budget_tokens": 1024}}, token, anthropic.BadRequestError),
    ({"model": "demo/mute"}, token, anthropic.InternalServerError),
]:
    before = turns()
    try:
        client.with_options(api_key=token_).messages.create(max_tokens=500, messages=said, **kwargs)
    except kind as error:
        same(error.body["type"], "error")
        assert error.body["error"]["message"], error
    else:
        raise AssertionError(f"{kwargs} was taken")
    same(turns() - before, 1 if kwargs["model"] == "demo/mute" else 0)

print("anthropic", anthropic.__version__, "is content")
