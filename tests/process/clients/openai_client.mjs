// Talks to a node with OpenAI's own JavaScript client, as somebody's program would: BASE_URL and TOKEN are the arguments.

import assert from "node:assert/strict";
import OpenAI from "openai";

const [base, token] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: token, maxRetries: 2 });
const said = [{ role: "user", content: "Draw a chart of sales by quarter" }];

const turns = async () => {
  const answer = await fetch(`${base}/api/v1/workspaces/demo/conversations?limit=500`, { headers: { Authorization: `Bearer ${token}` } });
  return (await answer.json()).conversations.reduce((sum, row) => sum + row.turns, 0);
};

// By capability, whole.
const whole = await client.chat.completions.create({ model: "auto", messages: said, temperature: 0, seed: 7, user: "ada" });
const text = whole.choices[0].message.content;
assert.match(text, /Send me a file/);
assert.equal(whole.choices[0].finish_reason, "stop");
assert.ok(whole.usage.prompt_tokens > 0 && whole.usage.completion_tokens > 0);

// To one agent, streamed.
let told = "";
let usage;
const stream = await client.chat.completions.create({
  model: "demo/data-analyzer", messages: said, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  told += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(told, text);
assert.ok(usage.total_tokens > 0);

// The program's own tool: whole, streamed, and by the helper that calls it.
const tool = { type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } };
const asked = [{ role: "user", content: "How is the weather?" }];
const turn = await client.chat.completions.create({ model: "demo/talker", messages: asked, tools: [tool] });
const call = turn.choices[0].message.tool_calls[0];
assert.deepEqual([turn.choices[0].finish_reason, call.function.name, call.function.arguments], ["tool_calls", "get_weather", '{"city":"Oslo"}']);
const events = client.chat.completions.stream({ model: "demo/talker", messages: asked, tools: [tool] });
assert.equal((await events.finalChatCompletion()).choices[0].message.tool_calls[0].function.name, "get_weather");
const runner = client.chat.completions.runTools({
  model: "demo/talker", messages: asked,
  tools: [{ type: "function", function: { ...tool.function, parse: JSON.parse, function: () => '{"degrees": 7}' } }],
});
assert.equal(await runner.finalContent(), "In Oslo it is 7 degrees.");

// One key, one turn.
const keyed = { idempotencyKey: "js-1", headers: { "Idempotency-Key": "js-1" } };
const first = await client.chat.completions.create({ model: "auto", messages: said }, keyed);
const again = await client.chat.completions.create({ model: "auto", messages: said }, keyed);
assert.equal(first.caxton.turn, again.caxton.turn);

// Errors are the client's own kinds, and a turn that failed is not begun again.
for (const [more, key, kind, cost] of [
  [{ model: "demo/nobody" }, token, OpenAI.NotFoundError, 0],
  [{ model: "auto" }, "wrong", OpenAI.AuthenticationError, 0],
  [{ model: "auto", n: 2 }, token, OpenAI.BadRequestError, 0],
  [{ model: "demo/mute" }, token, OpenAI.InternalServerError, 1],
]) {
  const before = await turns();
  await assert.rejects(client.withOptions({ apiKey: key }).chat.completions.create({ messages: said, ...more }), (error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.ok(error.error.message);
    return true;
  });
  assert.equal((await turns()) - before, cost, JSON.stringify(more));
}

console.log("openai for JavaScript is content");
