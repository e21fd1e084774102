"""Segue by LangChain. `pip install langchain-openai; python examples/langchain_chat.py`, with Segue at SEGUE_URL."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

url = os.environ.get("SEGUE_URL", "http://127.0.0.1:8000") + "/v1"
chat = ChatOpenAI(model="segue-auto", base_url=url, api_key=SecretStr(os.environ.get("SEGUE_API_KEY", "unused")))

print(chat.invoke("Why is the sky blue?").content)
for piece in chat.stream("Say hello in three languages"):
    print(piece.content, end="", flush=True)
print()


@tool
def get_weather(city: str) -> str:
    """Say what the weather is in a city."""
    return f"It has seven degrees in {city}."


wants = chat.bind_tools([get_weather]).invoke("What is the weather in Oslo?")
for call in wants.tool_calls:
    print(call["name"], call["args"], "->", get_weather.invoke(call).content)
