"""OpenAI's Python client with a callback: `openai_callback.py <base url> <callback url>` prints ids of responses."""

import sys

import openai
from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="unused")

one = client.responses.create(
    model="segue-auto",
    input="What is the capital of France?",
    background=True,
    extra_headers={"Segue-Callback-Url": sys.argv[2]},
)
assert one.status == "queued"
print(one.id)
always = OpenAI(base_url=sys.argv[1], api_key="unused", default_headers={"Segue-Callback-Url": sys.argv[2]})
print(always.responses.create(model="medium_ai", input="What is the capital of Spain?").id)
try:
    client.responses.create(model="medium_ai", input="?", extra_headers={"Segue-Callback-Url": "https://10.0.0.1/"})
except openai.BadRequestError as error:
    assert error.param == "Segue-Callback-Url"
else:
    raise AssertionError("a URL in a private network was taken")
