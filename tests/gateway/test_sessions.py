"""`GET` and `DELETE /session/{id}`: the conversation as the finisher keeps it."""

import pytest

from tests.gateway.conftest import Stage


async def test_a_conversation_is_read(stage: Stage) -> None:
    """Both turns, oldest first, each message with its time; images beside the text."""
    async with stage() as (http, _):
        first = (await http.post("/chat", json={"message": "One?"})).json()
        session = first["session_id"]
        images = ["https://example.org/a.png"]
        second = (await http.post("/chat", json={"message": "Two?", "session_id": session, "images": images})).json()
        answer = await http.get(f"/session/{session}")
        assert answer.status_code == 200
        body = answer.json()
        assert body["session_id"] == session
        assert [(one["role"], one["content"]) for one in body["messages"]] == [
            ("user", "One?"),
            ("assistant", first["response"]),
            ("user", "Two?"),
            ("assistant", second["response"]),
        ]
        assert [one["images"] for one in body["messages"]] == [[], [], images, []]
        times = [one["timestamp"] for one in body["messages"]]
        assert times == sorted(times)
        assert body["created_at"] == times[0]


async def test_a_deleted_conversation_is_gone(stage: Stage) -> None:
    """It is not found any more, is not counted any more, and can begin again under the same name."""
    async with stage() as (http, _):
        await http.post("/chat", json={"message": "One?", "session_id": "mine"})
        await http.post("/chat", json={"message": "One?", "session_id": "other"})
        assert (await http.get("/stats")).json()["active_sessions"] == 2
        answer = await http.delete("/session/mine")
        assert answer.status_code == 200
        assert answer.json() == {"status": "deleted", "session_id": "mine"}
        assert (await http.get("/session/mine")).status_code == 404
        assert (await http.delete("/session/mine")).status_code == 404
        assert (await http.get("/stats")).json()["active_sessions"] == 1
        await http.post("/chat", json={"message": "Again?", "session_id": "mine"})
        assert len((await http.get("/session/mine")).json()["messages"]) == 2


@pytest.mark.parametrize("session", ["nobody", "a%20b", "a.b", "%3E", "*", "x" * 65])
async def test_an_unknown_session_is_not_there(stage: Stage, session: str) -> None:
    async with stage(takes=False) as (http, _):
        for method in ("GET", "DELETE"):
            answer = await http.request(method, f"/session/{session}")
            assert answer.status_code == 404
            assert "no session" in answer.json()["detail"]
