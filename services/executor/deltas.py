"""A call's text as it comes in, over core NATS: heard by whoever listens now, outside the log."""

import time

from nats.aio.client import Client
from nats.errors import Error
from pydantic_core import to_json

from shared import subjects
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptStarted
from shared.observe import metrics


class Deltas:
    """Of one attempt: `{"call", "attempt", "offset", "text"}`, offset in characters. Losing one loses a hint only."""

    def __init__(self, client: Client, command: ExecuteCall, started: AttemptStarted) -> None:
        self._client = client
        self._subject = subjects.token(command.run.tenant, command.run.run_id, command.call)
        self._call = command.call
        self._started = started
        self._offset = 0
        self._began_s = 0.0

    async def begin(self) -> None:
        """Say that the text starts again, unless this is the first attempt."""
        self._began_s = time.monotonic()
        if self._started.attempt > 1:
            await self._publish({"call": self._call, "attempt": self._started.attempt, "restart": True})

    async def send(self, text: str) -> None:
        """Publish a piece of text."""
        if self._offset == 0:
            metrics.FIRST_TOKEN_SECONDS.labels(self._started.provider, self._started.model).observe(
                time.monotonic() - self._began_s
            )
        offset, self._offset = self._offset, self._offset + len(text)
        await self._publish({"call": self._call, "attempt": self._started.attempt, "offset": offset, "text": text})

    async def _publish(self, fields: dict[str, object]) -> None:
        try:
            await self._client.publish(self._subject, to_json(fields))
        except Error:
            return  # not connected: the answer on the log is what counts
