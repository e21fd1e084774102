"""Pydantic AI: `python pydantic_ai_client.py <base url>`. An agent with a tool and a result of a given shape."""

import asyncio
import sys

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=sys.argv[1], api_key="unused")


class City(BaseModel):
    name: str
    people: int


async def main() -> None:
    for model in (
        OpenAIChatModel("segue-auto", provider=provider),
        OpenAIChatModel("medium_ai", provider=provider),
        OpenAIResponsesModel("medium_ai", provider=provider),
    ):
        agent = Agent(model, instructions="Be kind.")

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """Say what the weather is."""
            return f"seven degrees in {city}"

        result = await agent.run("What is the weather in Oslo?")
        assert "seven degrees" in result.output, result.output
        again = await agent.run("What did I ask?", message_history=result.all_messages())
        assert "weather in Oslo" in again.output
        async with agent.run_stream("Hello there") as stream:
            text = await stream.get_output()
        assert text.startswith("[simulated]")
        shaped = await Agent(model, output_type=City).run("Which city?")
        assert isinstance(shaped.output, City)
        print(f"{type(model).__name__} {model.model_name}: as it should be")


asyncio.run(main())
