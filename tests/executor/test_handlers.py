"""Calls against a real server and a scripted provider: each is settled once, with what it cost."""

from shared.contracts.ids import Lane, Purpose
from tests.conftest import eventually
from tests.executor.conftest import Begin, call, run


async def test_a_call_is_answered_settled_and_gone_from_its_queue(begin: Begin) -> None:
    """One attempt on the log, one request, one settlement with tokens, cost and what the command carried."""
    world = await begin()
    command = call(category="M", note="as asked")
    settled = await world.do(command)
    assert (settled.outcome, settled.text, settled.finish_reason) == ("answered", "hello", "stop")
    assert (settled.cost_usd, settled.cost_known, settled.usage.total_tokens) == (0.001, True, 15)
    assert (settled.role, settled.asked_role, settled.provider) == ("medium_ai", "medium_ai", "openrouter")
    assert (settled.model, settled.attempts, settled.simulated) == ("served/model", 1, True)
    assert (settled.category, settled.note, settled.purpose) == ("M", "as asked", Purpose.ANSWER)
    (attempt,) = await world.attempts(command)
    assert (attempt.attempt, attempt.model) == (1, "vendor/medium_ai")

    async def gone() -> bool:
        return await world.queued() == 0

    await eventually(gone)
    (seen,) = world.provider.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == "Bearer sk-secret-key"
    assert seen.headers["x-segue-run"] == command.run.run_id
    assert seen.headers["x-segue-call"] == "answer.answer"
    assert seen.headers["x-segue-attempt"] == "1"
    assert seen.body == {
        "model": "vendor/medium_ai",
        "messages": [{"role": "user", "content": "how are you?"}],
        "temperature": 0.5,
        "max_tokens": 100,
    }


async def test_the_call_overrides_the_role(begin: Begin) -> None:
    """Temperature, length and top_p of the command win over the role's."""
    world = await begin()
    await world.do(call(run(), temperature=0.0, max_tokens=7, top_p=0.25, lane=Lane.CONTROL))
    body = world.provider.seen[0].body
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.0, 7, 0.25)
