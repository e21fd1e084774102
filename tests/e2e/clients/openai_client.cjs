// OpenAI's client for Node: `node openai_client.cjs <base url>`. Fails with what is not as it should be.
const assert = require("node:assert");
const OpenAI = require("openai").default;

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "unused" });
const told = (content) => [{ role: "user", content }];
const tool = { type: "function", function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } };

async function main() {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert(names.includes("segue-auto"));

  for (const model of ["segue-auto", "medium_ai"]) {
    const answer = await client.chat.completions.create({ model, messages: told("What is the capital of France?") });
    assert.match(answer.choices[0].message.content, /capital of France/);
    assert(answer.usage.total_tokens > 0);

    const stream = client.chat.completions.stream({ model, messages: told("Hello there"), stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    assert.match(final.choices[0].message.content, /^\[simulated\]/);
    assert(final.usage.total_tokens > 0);

    const wants = await client.chat.completions.create({ model, messages: told("The weather in Oslo?"), tools: [tool] });
    assert.strictEqual(wants.choices[0].finish_reason, "tool_calls");
    const call = wants.choices[0].message.tool_calls[0];
    const messages = [...told("The weather in Oslo?"), wants.choices[0].message, { role: "tool", tool_call_id: call.id, content: "seven degrees" }];
    const seen = await client.chat.completions.create({ model, messages, tools: [tool] });
    assert.match(seen.choices[0].message.content, /seven degrees/);
  }

  await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages: told("Hi") }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ model: "medium_ai", n: 2, messages: told("Hi") }), OpenAI.BadRequestError);
  const refused = await client.chat.completions.create({ model: "medium_ai", stream: true, messages: told("this is always filtered") });
  await assert.rejects(async () => { for await (const _ of refused); }, OpenAI.APIError);

  const events = [];
  for await (const event of await client.responses.create({ model: "segue-auto", input: "Hello there", stream: true })) events.push(event);
  assert.strictEqual(events.at(-1).type, "response.completed");
  const id = events[0].response.id;
  const rest = [];
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: events[3].sequence_number })) rest.push(event.type);
  assert.strictEqual(rest.at(-1), "response.completed");
  const next = await client.responses.create({ model: "medium_ai", input: "And?", previous_response_id: id });
  assert.match(next.output_text, /Hello there/);
  console.log("as it should be");
}

main().catch((error) => { console.error(error); process.exit(1); });
