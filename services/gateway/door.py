"""The bus as a front door: what outside systems ask in their own accounts is answered here. (docs/bus.md, ADR 0023)

Each question comes over core NATS with a reply subject and gets one answer, once what it asks for is stored. Whose it
is says its subject, which the asker's account imports and cannot choose.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from services.gateway import requests
from services.gateway.gateway import Gateway
from services.gateway.http.errors import Refusal, invalid, said_of
from services.gateway.keys import accounts
from services.gateway.principal import Principal
from shared import subjects
from shared.access.records import Records
from shared.bus.errors import BusError
from shared.contracts.door import Refused
from shared.contracts.ids import is_token
from shared.contracts.message import Part
from shared.observe import metrics
from shared.subjects import ROOT

log = logging.getLogger("segue.gateway")

GROUP: Final = "door"
PLACES: Final = 512
"""Questions being answered at once in one process, most of which wait for the bus."""
PER_TENANT: Final = 128
LATER_S: Final = 1.0


class Door:
    """One a process, once the gateway is there."""

    def __init__(self, client: Client, gateway: Gateway, records: Records) -> None:
        self._records = records
        self._client = client
        self._gateway = gateway
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._of: Counter[str] = Counter()

    async def open(self) -> None:
        """Begin to answer, in turn with other gateways."""
        self._subscription = await self._client.subscribe(f"{ROOT}.door.*.>", queue=GROUP, cb=self._take)

    async def close(self) -> None:
        """Take nothing more, and finish what was begun: others answer what comes from now on."""
        if self._subscription is not None and not self._client.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.drain()  # type: ignore[no-untyped-call]  # nats-py's
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, msg: Msg) -> None:
        tenant, said = subjects.asked_of(msg.subject)
        if len(self._tasks) >= PLACES or self._of[tenant] >= PER_TENANT:
            detail = "too many of your requests are being taken at this moment; send it again: nothing was kept"
            await self._answer(msg, said, Refused(status=503, detail=detail, retry_after_s=LATER_S))
            return
        self._of[tenant] += 1
        task = asyncio.create_task(self._serve(msg, tenant, said))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, tenant))

    def _done(self, task: "asyncio.Task[None]", tenant: str) -> None:
        self._tasks.discard(task)
        self._of[tenant] -= 1
        if self._of[tenant] <= 0:
            del self._of[tenant]

    async def _serve(self, msg: Msg, tenant: str, said: tuple[str, ...]) -> None:
        try:
            # The account's tenant has the limits that it has over HTTP.
            limits = await accounts(self._records, tenant) if is_token(tenant) else ()
            asks = Principal(tenant, accounts=limits, name="an outside system")
            answer = await requests.answered(self._gateway, asks, said, msg.data, msg.headers or {})
        except ValidationError as error:
            answer = _refused(invalid(error))
        except Refusal as refusal:
            answer = _refused(refusal)
        except Exception as error:  # noqa: BLE001 - here the question is settled: the asker is told whatever it was
            answer = _failed(error)
        await self._answer(msg, said, answer)

    async def _answer(self, msg: Msg, said: tuple[str, ...], answer: Part) -> None:
        status = answer.status if isinstance(answer, Refused) else 200
        metrics.REQUESTS.labels(f"bus.{_kind(said)}", str(status)).inc()
        if msg.reply:
            body = answer.__pydantic_serializer__.to_json(answer, exclude_none=True)
            with contextlib.suppress(nats.errors.Error):  # the connection went: the asker asks again
                await self._client.publish(msg.reply, body)
        elif isinstance(answer, Refused):
            await self._bury(msg, answer)

    async def _bury(self, msg: Msg, refused: Refused) -> None:
        """Store what was refused and cannot be told to anybody, with the reason."""
        headers = {"Segue-Reason": f"{refused.status}: {refused.detail}"[:2_000], "Segue-Subject": msg.subject}
        with contextlib.suppress(BusError):
            await self._gateway.bus.jetstream.publish(subjects.dead("gateway"), msg.data, headers=headers)
            metrics.DEAD_LETTERS.labels("gateway", "buried").inc()
        log.warning("door.refused_unheard", extra={"subject": msg.subject, "status": refused.status})


def _kind(said: tuple[str, ...]) -> str:
    return said[0] if said and said[0] in requests.KINDS else "other"


def _refused(refusal: Refusal) -> Refused:
    after = (refusal.headers or {}).get("Retry-After")
    return Refused.model_validate(
        {
            "status": refusal.status_code,
            "detail": refusal.said,
            "retry_after_s": float(after) if after is not None else None,
        }
    )


def _failed(error: Exception) -> Refused:
    status, detail, headers = said_of(error)
    if status >= 500:
        log.warning("door.failed", extra={"status": status, "error": str(error) or type(error).__name__})
    after = headers.get("Retry-After")
    return Refused(status=status, detail=detail, retry_after_s=float(after) if after is not None else None)
