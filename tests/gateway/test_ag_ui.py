"""`POST /ag-ui`: every event is one that the protocol's own models know; steps and messages are opened and closed."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from ag_ui.core.events import Event
from ag_ui.core.types import RunAgentInput, UserMessage
from pydantic import TypeAdapter

from shared.contracts.commands import ChatRequest, SubmitRequest
from shared.contracts.ids import Category
from tests.gateway.backstage import Backstage, Command, ended, ending, fault
from tests.gateway.conftest import Stage

EVENTS: TypeAdapter[Any] = TypeAdapter(Event)


def asking(text: str = "How do I move?", run: str = "run one", thread: str = "thread one") -> dict[str, Any]:
    """Return a request as the protocol's own client writes it."""
    asked = RunAgentInput(
        thread_id=thread,
        run_id=run,
        messages=[UserMessage(id="m1", content=text)],
        state={},
        tools=[],
        context=[],
        forwarded_props={},
    )
    body: dict[str, Any] = json.loads(asked.model_dump_json(by_alias=True))
    return body


async def told(
    http: httpx.AsyncClient, body: dict[str, Any], *, acknowledged: asyncio.Event | None = None
) -> list[dict[str, Any]]:
    """Return a run's events, each checked by the protocol's models, and their order by its rules.

    `acknowledged` is set when the first message has ended.
    """
    found = []
    async with asyncio.timeout(20), http.stream("POST", "/ag-ui", json=body) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                EVENTS.validate_json(line[6:])
                found.append(json.loads(line[6:]))
                if acknowledged is not None and found[-1]["type"] == "TEXT_MESSAGE_END":
                    acknowledged.set()
    check(found, body)
    return found


def check(found: list[dict[str, Any]], body: dict[str, Any]) -> None:
    assert found[0]["type"] == "RUN_STARTED"
    assert [one["type"] in ("RUN_FINISHED", "RUN_ERROR") for one in found].index(True) == len(found) - 1
    for one in (found[0], found[-1]):
        if one["type"] != "RUN_ERROR":
            assert (one["threadId"], one["runId"]) == (body["threadId"], body["runId"])
    steps, message = set[str](), None
    for one in found:
        match one["type"]:
            case "STEP_STARTED":
                assert one["stepName"] not in steps
                steps.add(one["stepName"])
            case "STEP_FINISHED":
                steps.remove(one["stepName"])
            case "TEXT_MESSAGE_START":
                assert message is None
                message = one["messageId"]
            case "TEXT_MESSAGE_CONTENT":
                assert (one["messageId"], bool(one["delta"])) == (message, True)
            case "TEXT_MESSAGE_END":
                assert one["messageId"] == message
                message = None
    assert (steps, message) == (set(), None)


def texts(found: list[dict[str, Any]]) -> list[str]:
    """Return the messages as a client shows them in the end."""
    shown: dict[str, str] = {}
    for one in found:
        match one["type"]:
            case "TEXT_MESSAGE_CONTENT":
                shown[one["messageId"]] = shown.get(one["messageId"], "") + one["delta"]
            case "MESSAGES_SNAPSHOT":
                shown = {said["id"]: said["content"] for said in one["messages"] if said["role"] == "assistant"}
    return list(shown.values())


async def answered(stage: Backstage, command: Command) -> None:
    assert isinstance(command, SubmitRequest)
    run = (await stage.accept(command)).run
    await stage.categorize(run, Category.M)
    await stage.attempt(run, "answer")
    await stage.attempt(run, "answer", 2)
    await stage.token(run, "answer", attempt=2, offset=0, text="Pack ")
    await stage.token(run, "answer", attempt=2, offset=5, text="boxes")
    await stage.settle(run, "answer", "Pack boxes.", attempts=2)
    await stage.end(ended(run, text="Pack boxes."))


async def test_an_answer_is_told_in_the_protocols_events(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = answered
        found = await told(http, asking())
        kinds = [one["type"] for one in found if one["type"] != "TEXT_MESSAGE_CONTENT"]
        assert sorted(kinds) == sorted(
            ["RUN_STARTED", "CUSTOM", "STEP_STARTED", "TEXT_MESSAGE_START", "STEP_FINISHED", "TEXT_MESSAGE_END",
             "RUN_FINISHED"]
        )  # fmt: skip
        assert texts(found) == ["Pack boxes."]
        assert found[-1]["outcome"] == {"type": "success"}
        assert found[-1]["result"]["run_id"] == backstage.taken[0].run.run_id
        assert found[-1]["usage"] == [{"inputTokens": 11, "outputTokens": 7}]
        again = await told(http, asking())
        assert texts(again) == ["Pack boxes."], "the same run of the same thread is told again, and not asked again"
        assert len(backstage.taken) == 1


async def test_what_was_said_in_vain_is_taken_back(stage: Stage) -> None:
    """The first attempt's text goes, the acknowledgement stays; a thread of any name is one session."""
    async with stage() as (http, backstage):
        acknowledged = asyncio.Event()

        async def in_vain(stage: Backstage, command: Command) -> None:
            run = (await stage.accept(command)).run
            await stage.acknowledge(run, "On it.")
            await acknowledged.wait()
            await stage.token(run, "final", attempt=1, offset=0, text="Unpack")
            await stage.token(run, "final", attempt=2, restart=True)
            await stage.token(run, "final", attempt=2, offset=0, text="Pack boxes")
            await stage.end(ended(run, category=Category.H, text="Pack boxes.", acknowledgement="On it."))

        backstage.script = in_vain
        found = await told(http, asking(thread="my thread / one"), acknowledged=acknowledged)
        assert texts(found) == ["On it.", "Pack boxes."]
        assert [one["type"] for one in found].count("MESSAGES_SNAPSHOT") == 1
        await told(http, asking(run="run two", thread="my thread / one"))
        assert backstage.taken[0].run.session_id == backstage.taken[1].run.session_id
        await told(http, asking(run="run two"))
        assert len({command.run.session_id for command in backstage.taken}) == 2


async def test_a_failure_is_an_error_and_a_cancellation_an_outcome(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = ending(outcome="failed", fault=fault("resource", "deadline", "not done within 20 s", 504))
        failed = (await told(http, asking(run="one")))[-1]
        assert (failed["type"], failed["code"], failed["message"]) == ("RUN_ERROR", "deadline", "not done within 20 s")
        backstage.script = ending(outcome="cancelled", fault=fault("logical", "cancelled", "cancelled"))
        assert (await told(http, asking(run="two")))[-1]["outcome"] == {"type": "cancelled"}


async def test_images_and_context_come_along(stage: Stage) -> None:
    async with stage() as (http, backstage):
        backstage.script = answered
        body = asking()
        body["messages"][-1]["content"] = [
            {"type": "text", "text": "What is it?"},
            {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}},
            {"type": "image", "source": {"type": "data", "value": "AAAA", "mimeType": "image/png"}},
        ]
        body["context"] = [{"description": "the user's city", "value": "Sète"}]
        RunAgentInput.model_validate(body)
        await told(http, body)
        request = backstage.taken[0].request
        assert isinstance(request, ChatRequest)
        assert request.message == "What is it?\n\nContext:\n- the user's city: Sète"
        assert request.images == ("https://example.org/a.png", "data:image/png;base64,AAAA")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"messages": []}, "$.messages"),
        ({"messages": [{"id": "1", "role": "assistant", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"id": "1", "role": "user", "content": " "}]}, "$.messages[0].content"),
        ({"messages": [{"id": "1", "role": "user", "content": [{"type": "audio"}]}]}, "$.messages[0].content[0]"),
        ({"threadId": ""}, "$.threadId"),
        ({"runId": None}, "$.runId"),
    ],
)
async def test_what_is_not_understood_is_named(stage: Stage, change: dict[str, Any], path: str) -> None:
    async with stage(takes=False) as (http, _):
        answer = await http.post("/ag-ui", json={**asking(), **change})
        assert (answer.status_code, answer.json()["detail"][0]["path"]) == (422, path)
