// Vercel's AI SDK: `node ai_sdk.cjs <base url>`. Fails with what is not as it should be.
const assert = require("node:assert");
const { generateObject, generateText, stepCountIs, streamText, tool } = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");
const { z } = require("zod");

const openai = createOpenAI({ baseURL: process.argv[2], apiKey: "unused" });
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async () => "seven degrees",
  }),
};
const asked = { tools, stopWhen: stepCountIs(3), maxRetries: 0, prompt: "The weather in Oslo?" };

async function main() {
  // Of the first step's items, the second step of the Responses API says the ids only.
  for (const model of [openai("segue-auto"), openai("medium_ai"), openai.chat("segue-auto")]) {
    const answer = await generateText({ model, ...asked });
    assert.match(answer.text, /seven degrees/);
    assert.strictEqual(answer.steps.length, 2);
    assert(answer.totalUsage.totalTokens > 0);

    const stream = streamText({ model, ...asked, onError: ({ error }) => { throw error; } });
    const kinds = new Set();
    for await (const part of stream.fullStream) kinds.add(part.type);
    for (const kind of ["tool-call", "tool-result", "text-delta", "finish"]) assert(kinds.has(kind), `${kind} in ${[...kinds]}`);
    assert.match(await stream.text, /seven degrees/);
  }

  const messages = [{ role: "user", content: "My name is Bo" }];
  const first = await generateText({ model: openai("segue-auto"), messages, maxRetries: 0 });
  messages.push(...first.response.messages, { role: "user", content: "Hello again" });
  const second = await generateText({ model: openai("segue-auto"), messages, maxRetries: 0 });
  assert.match(second.text, /^\[simulated\]/);

  const { object } = await generateObject({ model: openai("segue-auto"), schema: z.object({ city: z.string() }), prompt: "Oslo", maxRetries: 0 });
  assert.strictEqual(typeof object.city, "string");
  console.log("as it should be");
}

main().catch((error) => { console.error(error); process.exit(1); });
