"""A stand-in for the services behind the gateway: it takes commands off the real bus and writes a scripted story."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from shared import subjects
from shared.bus.connection import Bus, open_bus, options
from shared.bus.delivery import Delivery, Done, Verdict
from shared.bus.provisioner import provision
from shared.contracts.commands import ChatRequest, PlanRun, Spent, SubmitRequest, WorkflowRequest
from shared.contracts.events import (
    AttemptStarted,
    CallSettled,
    RunAccepted,
    RunCategorized,
    RunEnded,
    Session,
    Turn,
)
from shared.contracts.hints import AskText, TextSoFar
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import ChatMessage, Fault, Run, Usage
from shared.conversation import user_message
from shared.pool import pool
from shared.topology import CATEGORIZER, PLANNER, Limits

Command = SubmitRequest | PlanRun
Script = Callable[["Backstage", Command], Coroutine[None, None, None]]


class Backstage:
    """Takes requests and workflows; `script` says what becomes of each."""

    def __init__(self, url: str, limits: Limits, *, takes: bool = True) -> None:
        self._url = url
        self._limits = limits
        self._takes = takes
        self.script: Script = answer
        self.taken: list[Command] = []
        self.broken: list[BaseException] = []
        """Scripts that failed: a test that passes has none."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Backstage":
        async def reconnected() -> None:
            await self.bus.reconnected()

        self.client: Client = await nats.connect(**options(self._url, "backstage", reconnected=reconnected))
        await provision(self.client, self._limits)
        self.bus: Bus = await open_bus(self.client)
        self._pulls = [
            pool(self.bus, "backstage", CATEGORIZER, self._submitted, places=64),
            pool(self.bus, "backstage", PLANNER, self._planned, places=64),
        ]
        self.bus.on_reconnect.extend(pull.on_reconnect for pull in self._pulls)
        if self._takes:
            await self.begin()
        return self

    async def begin(self) -> None:
        """Take what there is, from now on."""
        for pull in self._pulls:
            await pull.start()

    async def __aexit__(self, *_: object) -> None:
        for pull in self._pulls:
            await pull.drain(0.1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    async def _submitted(self, delivery: Delivery) -> Verdict:
        return await self._take(delivery, SubmitRequest)

    async def _planned(self, delivery: Delivery) -> Verdict:
        return await self._take(delivery, PlanRun)

    async def _take(self, delivery: Delivery, kind: type[SubmitRequest] | type[PlanRun]) -> Verdict:
        """Begin the script for a command, without waiting for it."""
        command = kind.decode(await self.bus.payloads.unpack(delivery.data, delivery.headers))
        self.taken.append(command)
        task = asyncio.create_task(self.script(self, command))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return Done()

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.append(error)

    # Facts

    async def accept(self, command: Command) -> RunAccepted:
        fact = RunAccepted(
            run=command.run,
            request=command.request,
            by="categorizer" if isinstance(command, SubmitRequest) else "planner",
        )
        return (await self.bus.log.write(self.facts(command.run).accepted, fact)).fact

    async def categorize(self, run: Run, category: Category | None, reason: str = "letter") -> None:
        fact = RunCategorized(run=run, category=category, reason=reason, role=None, context_tokens=1)
        await self.bus.log.write(self.facts(run).category, fact)

    async def acknowledge(self, run: Run, text: str) -> None:
        fact = CallSettled(
            run=run,
            call="acknowledge",
            purpose=Purpose.DECISION,
            outcome="answered",
            text=text,
            role="thinking_fast_response_ai",
            asked_role="thinking_fast_response_ai",
        )
        await self.bus.log.write(self.facts(run).settled(Purpose.DECISION, "acknowledge"), fact)

    async def token(self, run: Run, call: str, **delta: object) -> None:
        body = json.dumps({"call": call, **delta}).encode()
        await self.client.publish(subjects.token(run.tenant, run.run_id, call), body)

    async def attempt(self, run: Run, call: str, number: int = 1) -> None:
        """Claim an attempt of a task's call."""
        fact = AttemptStarted(
            run=run,
            call=call,
            attempt=number,
            role="medium_ai",
            provider="openrouter",
            model="maker/medium_ai",
            claimed_by="a.b",
            started_at=datetime.now(UTC),
        )
        await self.bus.log.write(self.facts(run).attempt(Purpose.TASK, call, number), fact)

    async def settle(self, run: Run, call: str, text: str, attempts: int = 1) -> None:
        """Settle a task's call."""
        fact = CallSettled(
            run=run,
            call=call,
            purpose=Purpose.TASK,
            outcome="answered",
            text=text,
            role="medium_ai",
            asked_role="medium_ai",
            attempts=attempts,
        )
        await self.bus.log.write(self.facts(run).settled(Purpose.TASK, call), fact)

    async def knows(self, run: Run, call: str, attempt: int, text: str, most: int = 1000) -> list[AskText]:
        """Answer whoever asks for a call's text so far, as its executor does; returns what was asked."""
        asked: list[AskText] = []

        async def answer(msg: Msg) -> None:
            has = AskText.decode(msg.data)
            asked.append(has)
            at = has.offset if has.attempt == attempt else 0
            said = TextSoFar(call=call, attempt=attempt, offset=at, text=text[at : at + most], end=len(text))
            await self.client.publish(msg.reply, said.encode())

        await self.client.subscribe(subjects.sofar(run.tenant, run.run_id, call), cb=answer)
        return asked

    async def end(self, ended: RunEnded) -> RunEnded:
        written = await self.bus.log.write(self.facts(ended.run).ended, ended)
        await self.bus.log.take_timer_back(ended.run.run_id)
        return written.fact

    async def turn(self, command: SubmitRequest, text: str) -> None:
        run, now = command.run, datetime.now(UTC)
        turn = Turn(
            run_id=run.run_id,
            user=user_message(command.request.message, command.request.images),
            assistant=ChatMessage(role="assistant", content=text),
            asked_at=run.born_at,
            answered_at=now,
        )

        def add(there: Session | None) -> Session:
            before = there or Session(created_at=run.born_at)
            return before.model_copy(update={"turns": (*before.turns, turn)})

        await self.bus.sessions.update(f"{run.tenant}.{run.session_id}", Session, add)

    @staticmethod
    def facts(run: Run) -> subjects.Facts:
        return subjects.facts(run)

    async def timers(self) -> int:
        """Return how many deadlines the bus keeps."""
        info = await self.client.jetstream().stream_info("FINISHES", subjects_filter="segue.timer.*")
        return len(info.state.subjects or {})

    async def has_taken(self, commands: int) -> bool:
        """Whether so many were taken up: one is told of as soon as it is queued, and taken a moment after."""
        return len(self.taken) == commands

    async def keeps(self, timers: int) -> bool:
        """Whether the bus keeps so many deadlines: one that is taken back goes a moment after the answer."""
        return await self.timers() == timers

    async def listeners(self, run: Run) -> bool:
        """Whether somebody listens for the end of a run: publishing to nobody is answered as such."""
        probe = subjects.live(run.tenant, run.run_id).ended
        try:
            await self.client.request(probe, b"{}", timeout=0.2)
        except NoRespondersError:
            return False
        except TimeoutError:
            return True
        return True


def ended(run: Run, **fields: object) -> RunEnded:
    """Return an end as the finisher writes one."""
    spent = Spent(calls=2, cost_usd=0.0125, usage=Usage(prompt_tokens=11, completion_tokens=7), simulated=True)
    said = {"run": run, "outcome": "completed", "category": Category.M, "model": "some/model", "spent": spent}
    return RunEnded.model_validate({**said, "ended_at": datetime.now(UTC), **fields})


def text_of(request: ChatRequest | WorkflowRequest) -> str:
    """Return what the stand-in answers: enough to see that the request arrived whole."""
    if isinstance(request, ChatRequest):
        head = request.message[:80]
        return f"{len(request.message)} characters, {len(request.images)} images: {head}"
    return f"{sum(len(queue.tasks) for queue in request.workflow.workflow)} tasks"


async def answer(stage: Backstage, command: Command) -> None:
    """Accept and answer at once, with the session's turn before the end."""
    accepted = await stage.accept(command)
    text = text_of(accepted.request)
    if isinstance(command, SubmitRequest):
        await stage.turn(command, text)
        await stage.end(ended(accepted.run, text=text))
    else:
        assert isinstance(command.request, WorkflowRequest)
        result = {**command.request.workflow.variables, "out": text}
        await stage.end(ended(accepted.run, category=None, result=result))


async def silence(stage: Backstage, command: Command) -> None:
    """Accept and do nothing more."""
    await stage.accept(command)


def ending(**fields: object) -> Script:
    """Return a script that accepts and ends a run as given."""

    async def script(stage: Backstage, command: Command) -> None:
        accepted = await stage.accept(command)
        await stage.end(ended(accepted.run, **fields))

    return script


def fault(type_: str, code: str, message: str, status: int | None = None) -> Fault:
    return Fault.model_validate({"type": type_, "code": code, "message": message, "status": status})
