"""LangChain's ChatOpenAI: `python langchain_client.py <base url>`."""

import sys

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr


@tool
def get_weather(city: str) -> str:
    """Say what the weather is."""
    return f"seven degrees in {city}"


class City(BaseModel):
    """A city."""

    name: str
    people: int


def chat(model: str, **more: bool) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=sys.argv[1], api_key=SecretStr("unused"), **more)


for name in ("segue-auto", "medium_ai"):
    model = chat(name)
    answer = model.invoke([SystemMessage("Be kind."), HumanMessage("What is the capital of France?")])
    assert "capital of France" in str(answer.content)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0
    pieces = list(model.stream("Hello there"))
    assert "".join(str(piece.content) for piece in pieces).startswith("[simulated]")
    bound = model.bind_tools([get_weather])
    question = HumanMessage("What is the weather in Oslo?")
    wants = bound.invoke([question])
    (call,) = wants.tool_calls
    assert call["name"] == "get_weather"
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert "seven degrees" in str(bound.invoke([question, wants, result]).content)
    assert isinstance(model.with_structured_output(City).invoke("Which city?"), City)
    print(f"{name}: as it should be")

answer = chat("medium_ai", use_responses_api=True).invoke("What is the capital of France?")
assert "capital of France" in str(answer.text)
print("responses: as they should be")
