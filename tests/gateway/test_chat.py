"""`POST /chat`: answered from the log, refused with a reason."""

from tests.gateway.conftest import Stage


async def test_a_message_is_answered(stage: Stage) -> None:
    """Every field of the answer is there, and the run's timer is taken back."""
    async with stage() as (http, backstage):
        answer = await http.post("/chat", json={"message": "Why is the sky blue?"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        run = backstage.taken[0].run
        assert body == {
            "session_id": run.session_id,
            "response": "20 characters, 0 images: Why is the sky blue?",
            "category": "M",
            "timestamp": body["timestamp"],
            "model_used": "some/model",
            "run_id": run.run_id,
            "acknowledgement": None,
            "cost_usd": 0.0125,
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
            "took_s": body["took_s"],
            "simulated": True,
            "calls": 2,
            "note": None,
        }
        assert answer.headers["x-segue-run-id"] == run.run_id
        assert (run.deadline_at - run.born_at).total_seconds() == 20
        assert run.tenant == "default"
        assert run.priority == "medium"
