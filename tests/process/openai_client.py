"""Talks to a node with OpenAI's own Python client, as somebody's program would: BASE_URL and TOKEN are the arguments."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
said = [{"role": "user", "content": "Draw a chart of sales by quarter"}]


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


same([model.id for model in client.models.list()], ["auto", "demo/auto", "demo/data-analyzer", "demo/data-fetcher", "demo/talker"])
same(client.models.retrieve("demo/data-fetcher").id, "demo/data-fetcher")

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

# Errors are the client's own kinds.
for model, key, kind in [("demo/nobody", sys.argv[2], openai.NotFoundError), ("auto", "wrong", openai.AuthenticationError)]:
    try:
        client.with_options(api_key=key).chat.completions.create(model=model, messages=said)
    except kind as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{model} with the key {key[:5]} was taken")

print("openai", openai.VERSION, "is content")
