"""A bus whose questions or answers get lost."""

from collections.abc import Mapping

import pytest
from nats.aio.msg import Msg

from shared.bus.connection import Bus
from shared.bus.jetstream import JetStream


class Loses:
    """Stands in for `JetStream.request` and loses the answers, or the questions, of its first calls."""

    def __init__(self, jetstream: JetStream, *, answers: int = 0, questions: int = 0) -> None:
        self._request = jetstream.request
        self.answers, self.questions = answers, questions

    async def __call__(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Msg:
        if self.questions:
            self.questions -= 1
            raise TimeoutError
        answer = await self._request(subject, data, headers=headers, timeout_s=timeout_s)
        if self.answers:
            self.answers -= 1
            raise TimeoutError
        return answer


def losing(monkeypatch: pytest.MonkeyPatch, bus: Bus, *, answers: int = 0, questions: int = 0) -> Loses:
    loses = Loses(bus.jetstream, answers=answers, questions=questions)
    monkeypatch.setattr(bus.jetstream, "request", loses)
    return loses
