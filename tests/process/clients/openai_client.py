"""Talks to a node with OpenAI's own Python client, as somebody's program would: BASE_URL and TOKEN are the arguments."""

import json
import sys
import urllib.request

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=2)
said = [{"role": "user", "content": "Draw a chart of sales by quarter"}]


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


same([model.id for model in client.models.list()], ["auto", "demo/auto", "demo/data-analyzer", "demo/data-fetcher", "demo/mute", "demo/talker"])
same(client.models.retrieve("demo/data-fetcher").id, "demo/data-fetcher")


def turns():
    url = f"{sys.argv[1]}/api/v1/workspaces/demo/conversations?limit=500"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {sys.argv[2]}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return sum(row["turns"] for row in json.load(answer)["conversations"])


# By capability, whole.
whole = client.chat.completions.create(model="auto", messages=said)
text = whole.choices[0].message.content
assert "Send me a file" in text, text
same(whole.choices[0].finish_reason, "stop")
assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0, whole.usage

# To one agent, streamed.
stream = client.chat.completions.create(
    model="demo/data-analyzer", messages=said, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
same("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), text)
same([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "stop")
assert chunks[-1].usage.total_tokens > 0, chunks[-1]

# The program's own tool, twice: the helper that reads whole answers, and the one that reads streams.
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
asked = [{"role": "user", "content": "How is the weather?"}]
turn = client.chat.completions.create(model="demo/talker", messages=asked, tools=tools)
same(turn.choices[0].finish_reason, "tool_calls")
call = turn.choices[0].message.tool_calls[0]
same((call.function.name, call.function.arguments), ("get_weather", '{"city":"Oslo"}'))
with client.chat.completions.stream(model="demo/talker", messages=asked, tools=tools) as events:
    last = events.get_final_completion()
same(last.choices[0].message.tool_calls[0].function.name, "get_weather")
answered = [*asked, turn.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 7}'}]
final = client.chat.completions.create(model="demo/talker", messages=answered, tools=tools)
same(final.choices[0].message.content, "In Oslo it is 7 degrees.")

# One key, one turn.
key = {"Idempotency-Key": "python-1"}
first = client.chat.completions.create(model="auto", messages=said, extra_headers=key)
again = client.chat.completions.create(model="auto", messages=said, extra_headers=key)
same(first.model_extra["caxton"]["turn"], again.model_extra["caxton"]["turn"])

# Errors are the client's own kinds, and a turn that failed is not begun again.
for more, key, kind, cost in [
    ({"model": "demo/nobody"}, sys.argv[2], openai.NotFoundError, 0),
    ({"model": "auto"}, "wrong", openai.AuthenticationError, 0),
    ({"model": "auto", "n": 2}, sys.argv[2], openai.BadRequestError, 0),
    ({"model": "demo/mute"}, sys.argv[2], openai.InternalServerError, 1),
]:
    before = turns()
    try:
        client.with_options(api_key=key).chat.completions.create(messages=said, **more)
    except kind as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{more} with the key {key[:5]} was taken")
    same(turns() - before, cost)

print("openai", openai.VERSION, "is content")
