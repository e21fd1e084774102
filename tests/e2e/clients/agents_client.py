"""OpenAI's Agents SDK, over both of OpenAI's protocols: tools, streams, typed answers, turns."""

import asyncio
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

ASKED = "Get the weather in Oslo"


class Weather(BaseModel):
    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "seven degrees"


async def main(url: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=url, api_key="unused", max_retries=0)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        for name in ("segue-auto", "medium_ai"):
            agent = Agent(name="weather", instructions="Be brief.", model=kind(name, client), tools=[get_weather])
            result = await Runner.run(agent, ASKED)
            assert "seven degrees" in result.final_output
            assert result.context_wrapper.usage.requests == 2
            assert result.context_wrapper.usage.total_tokens > 0

            streamed = Runner.run_streamed(agent, ASKED)
            kinds = {event.type async for event in streamed.stream_events()}
            assert kinds >= {"raw_response_event", "run_item_stream_event"}, kinds
            assert "seven degrees" in streamed.final_output

            again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "Thank you"}])
            assert again.final_output

            typed = Agent(name="typed", model=kind(name, client), output_type=Weather)
            assert isinstance((await Runner.run(typed, "Seven degrees in Oslo")).final_output, Weather)


asyncio.run(main(sys.argv[1]))
