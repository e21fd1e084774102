"""LiteLLM as a library: `python litellm_client.py <base url>`."""

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

BASE_URL = sys.argv[1]
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
where = {"api_base": BASE_URL, "api_key": "unused"}

for model in ("openai/segue-auto", "openai/medium_ai"):
    answer = litellm.completion(model=model, messages=ASKED, **where)
    assert "capital of France" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    chunks = list(litellm.completion(model=model, messages=ASKED, stream=True, **where))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("[simulated]")
    print(f"{model}: as it should be")
try:
    litellm.completion(model="openai/gpt-nobody-has", messages=ASKED, **where)
except litellm.NotFoundError:
    print("errors: as they should be")
