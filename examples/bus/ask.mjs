// Ask Segue over the bus from an account of your own: npm install @nats-io/transport-node, then
// node ask.mjs nats://127.0.0.1:4222 acme a-password "What is the capital of France?"
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, headers } from "@nats-io/transport-node";

const [, , servers, user, pass, question] = process.argv;
const client = await connect({ servers, user, pass });

// With a message id a question can be repeated until there is an answer: it stays one run.
async function ask(subject, body, messageId) {
  const named = headers();
  if (messageId) named.set("Nats-Msg-Id", messageId);
  for (let tries = 0; tries < 10; tries++) {
    let answer;
    try {
      answer = (await client.request(subject, JSON.stringify(body), { timeout: 5_000, headers: named })).json();
    } catch {
      await sleep(1_000); // nobody is there at this moment
      continue;
    }
    if (answer.ok) return answer;
    if (answer.retry_after_s === undefined) throw new Error(`refused: ${answer.status} ${JSON.stringify(answer.detail)}`);
    await sleep(answer.retry_after_s * 1_000); // full: nothing was kept
  }
  throw new Error("nobody answered");
}

let heard;
let ended = new Promise((resolve) => (heard = resolve));
client.subscribe("segue.live.*.>", { // before asking, so that nothing is missed
  callback: (_, msg) => {
    console.log("heard", msg.subject.split(".").slice(3).join("."));
    if (msg.subject.endsWith(".ended")) heard();
  },
});
const begun = await ask("segue.chat", { message: question }, randomUUID());
for (;;) { // what is heard is a hint: reading says what is so
  const found = await ask(`segue.read.${begun.run_id}`, {});
  if (found.answer) {
    console.log("answer", found.answer.response ?? JSON.stringify(found.answer.error));
    break;
  }
  await Promise.race([ended, sleep(2_000)]);
}
await client.close();
