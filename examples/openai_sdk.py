"""Segue by OpenAI's Python client. `pip install openai; python examples/openai_sdk.py`, with Segue at SEGUE_URL."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("SEGUE_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("SEGUE_API_KEY", "unused"),
)

# The whole system: the request is categorised, and planned as a workflow of several models where that helps.
answer = client.chat.completions.create(
    model="segue-auto", messages=[{"role": "user", "content": "Why is the sky blue?"}]
)
print(answer.choices[0].message.content)
print("it cost", answer.segue["cost_usd"], "USD; run", answer.segue["run_id"])

# The same as a stream. What is done on the way to the answer comes as reasoning.
for chunk in client.chat.completions.create(
    model="segue-auto", messages=[{"role": "user", "content": "Compare two e-bikes, then recommend one"}], stream=True
):
    delta = chunk.choices[0].delta
    print(getattr(delta, "reasoning_content", None) or delta.content or "", end="", flush=True)
print()

# Not waited for: begin, go away, come back. It survives restarts of every part of Segue.
begun = client.responses.create(model="segue-auto", input="Write a haiku about night trains", background=True)
for event in client.responses.retrieve(begun.id, stream=True, starting_after=0):
    if event.type == "response.completed":
        print(event.response.output_text)

# One role, asked directly; and the next turn of a conversation that Segue remembers.
first = client.responses.create(model="medium_ai", input="My name is Bo.")
print(client.responses.create(model="medium_ai", input="Who am I?", previous_response_id=first.id).output_text)
