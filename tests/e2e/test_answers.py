"""What a caller gets from the running system, end to end."""

import json

import pytest

from tests.system import System, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_m_request_is_answered_and_its_facts_are_on_the_log(system: System) -> None:
    """An everyday question: one category, one answer, every fact written once, at most twelve durable writes."""
    body = await system.chat("What is the capital of France?")
    assert body["category"] == "M"
    assert "simulated" in body["response"]
    assert body["simulated"] is True
    assert body["cost_usd"] > 0
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    facts = await system.facts(body["run_id"])
    assert set(facts) == {
        "accepted",
        "category",
        "call.decision.categorize.attempt.1",
        "call.decision.categorize.settled",
        "call.answer.answer.attempt.1",
        "call.answer.answer.settled",
        "ended",
    }


async def test_an_m_request_takes_at_most_twelve_durable_writes(system: System) -> None:
    """Counted by the server itself: every message that any stream stored, the session's turn included."""
    await system.chat("What is the capital of Italy?")
    requests = 20

    async def asked() -> None:
        for number in range(requests):
            await system.chat(f"What is {number} plus one?")

    async def at_most_twelve() -> bool:
        return await system.stored_by(asked) / requests <= 12

    await eventually(at_most_twelve)  # what was delivered again, as a process stood still, may be written once more


async def test_second_turn_knows_the_first(system: System) -> None:
    """The session is context for the next question, and can be read and deleted."""
    first = await system.chat("My dog is called Wilhelmina. Say hello to her.")
    session = first["session_id"]
    second = await system.chat("What did I just tell you?", session_id=session)
    assert second["session_id"] == session
    ledger = await system.ledger()
    assert "Wilhelmina" in second["response"] or any("Wilhelmina" in json.dumps(entry) for entry in ledger[-1:])
    shown = (await system.http.get(f"{system.gateway.url}/session/{session}")).json()
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant", "user", "assistant"]
    gone = await system.http.delete(f"{system.gateway.url}/session/{session}")
    assert gone.json() == {"status": "deleted", "session_id": session}
    assert (await system.http.get(f"{system.gateway.url}/session/{session}")).status_code == 404


async def test_h_request_is_acknowledged_planned_and_assembled(system: System) -> None:
    """An orchestrated request: acknowledgement in a field of its own, a plan on the log, a final answer."""
    body = await system.chat(
        "Create a complete marketing campaign for a reusable water bottle: research the market, write a slogan, three "
        "social posts and an e-mail, then evaluate everything and summarise it in a report."
    )
    assert body["category"] == "H"
    assert body["acknowledgement"]
    assert body["response"] != body["acknowledgement"]
    facts = await system.facts(body["run_id"])
    assert facts["plan"]["source"] == "model"
    assert facts["call.decision.final.settled"]["outcome"] == "answered"
    tasks = [name for name in facts if name.startswith("call.task.") and name.endswith(".settled")]
    assert len(tasks) >= 2
    assert body["cost_usd"] > 0


async def test_custom_workflow_hands_values_on(system: System) -> None:
    """A two-step workflow: the second task gets the first one's output, `result` is by variable."""
    workflow = [
        {
            "type": "linear",
            "tasks": [{"model": "medium_ai", "prompt": "Describe {topic} briefly.", "output_variable": "facts"}],
        },
        {
            "type": "inline",
            "tasks": [{"model": "fast_ai", "prompt": "Shorten this: {facts}", "output_variable": "short"}],
        },
    ]
    answer = await system.post("/workflow", {"workflow": workflow, "variables": {"topic": "the zeppelin"}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "completed"
    assert "zeppelin" in body["result"]["facts"]
    assert "zeppelin" in body["result"]["short"]
    assert body["execution_time"] >= 0


async def test_large_context_passes_by_reference(system: System) -> None:
    """A message of 3.6 MB reaches the long-context model and is answered; nothing over 1 MB goes over the bus."""
    body = await system.chat("Summarise this. " + "lorem ipsum dolor " * 45_000)
    assert body["category"] == "L"
    big = await system.post("/chat", {"message": "x" * 3_590_000})
    assert big.status_code == 200, big.text[:500]


async def test_context_over_the_limit_is_denied(system: System) -> None:
    """Over 900,000 tokens: 413, with what to do about it."""
    answer = await system.post("/chat", {"message": "hello", "context_tokens": 900_001})
    assert answer.status_code == 413
    assert "shorten" in answer.json()["detail"]
