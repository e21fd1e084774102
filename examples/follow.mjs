// Follows a run and prints its answers as they are written: node examples/follow.mjs "Why is the sky blue?"
// In a browser `new EventSource(url)` does the reading and the reconnecting by itself.
//
//   SEGUE_URL      where the gateway is (http://127.0.0.1:8000)
//   SEGUE_API_KEY  a key, where the gateway wants one

const base = process.env.SEGUE_URL ?? "http://127.0.0.1:8000";
const key = process.env.SEGUE_API_KEY;
const auth = key ? { authorization: `Bearer ${key}` } : {};

/** Yields a run's events, each fact once, however often the connection breaks. */
async function* follow(run) {
  let last = "";
  for (;;) {
    try {
      const headers = last ? { ...auth, "last-event-id": last } : auth;
      const answer = await fetch(`${base}/runs/${run}/events`, { headers });
      if (!answer.ok) {
        if (answer.status !== 503) throw Object.assign(new Error(await answer.text()), { final: true });
      } else {
        for await (const event of events(answer.body)) {
          if (event.id) last = event.id;
          yield event;
          if (event.name === "done") return;
        }
      }
    } catch (error) {
      if (error.final) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000)); // cut off: go on behind the last fact
  }
}

/** Reads server-sent events off a body. */
async function* events(body) {
  let rest = "";
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: "", name: "", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      if (event.name) yield { ...event, data: JSON.parse(event.data) };
    }
  }
}

const asked = await fetch(`${base}/chat`, {
  method: "POST",
  headers: { "content-type": "application/json", ...auth },
  body: JSON.stringify({ message: process.argv[2] ?? "Why is the sky blue?", async: true }),
});
const begun = await asked.json();
if (asked.status !== 202) throw new Error(JSON.stringify(begun));

// The run is there once somebody has accepted it.
while ((await fetch(`${base}${begun.status_url}`, { headers: auth })).status === 404) {
  await new Promise((resolve) => setTimeout(resolve, 100));
}

const texts = {}; // by call
for await (const { name, data } of follow(begun.run_id)) {
  if (name === "restart") texts[data.call] = "";
  else if (name === "token") {
    // Offset 0 begins the text, every other one goes on where the last piece ended.
    texts[data.call] = (data.offset === 0 ? "" : texts[data.call]) + data.text;
    process.stdout.write(data.text);
  } else if (name === "ended") {
    console.log(`\n${data.data.outcome}: ${JSON.stringify(data.data.text)}`);
  } else {
    console.log(`\n[${name}] ${data.fact ?? ""}`);
  }
}
