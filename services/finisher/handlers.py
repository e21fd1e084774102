"""End runs: an answer that is settled, a workflow that is through, a refusal, a deadline."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from services.finisher import assembly
from services.finisher.baseline import baseline_usd
from services.finisher.callbacks import call_back
from services.finisher.story import Story, complete, read_story
from services.finisher.through import Through, calls_of
from shared import subjects
from shared.access.accounts import left
from shared.bus.connection import Bus
from shared.bus.delivery import Delivery, Done, Poison, Verdict
from shared.contracts.access import Places
from shared.contracts.commands import CancelRun, ChatRequest, ControlRun, DeadlinePassed, ExecuteCall, FinishRun
from shared.contracts.events import (
    CallSettled,
    Progress,
    RunAccepted,
    RunEnded,
    RunPlanned,
    Session,
)
from shared.contracts.ids import Category, Lane, Purpose
from shared.contracts.message import ChatMessage, Fault, Message, Run, Unreadable
from shared.contracts.workflow import Workflow
from shared.conversation import CHARS_PER_TOKEN, estimated_tokens, user_message
from shared.faults import point
from shared.graphs import graph_of
from shared.observe import metrics
from shared.observe.logs import bound
from shared.prices import Price
from shared.topology import FINISHES
from shared.unreadable import end_run_of
from shared.workflows.outputs import State
from shared.workflows.substitution import as_text

log = logging.getLogger("segue.finisher")

M = TypeVar("M", bound=Message)

FINAL = "final"
EXPLAIN = "explain"
LEAST_ANSWER_TOKENS = 500
MOST_ANSWER_TOKENS = 8_000
_EXPANDED = frozenset("edfcu")
"""States of a task whose model may have written a workflow."""


@dataclass(frozen=True, slots=True)
class Presenters:
    """The roles that speak to the caller at the end of an orchestrated run."""

    finished_role: str
    finished_prompt: str
    finished_window_tokens: int
    failed_role: str
    failed_prompt: str


@dataclass(slots=True)
class Finisher:
    """What the handlers need; made in `app.py`."""

    bus: Bus
    presenters: Presenters
    now: Callable[[], datetime]
    baseline: Callable[[], Price | None] = lambda: None
    """The price of what runs are compared with, today."""

    async def answered(self, delivery: Delivery) -> Verdict:
        """End a run that one call answers: its `settled` is the word."""
        settled = await self._decoded(delivery, CallSettled)
        run = settled.run
        with bound(run_id=run.run_id, tenant=run.tenant):
            point("finisher.taken")
            if delivery.delivered > 1 and await self._over(run):
                return Done()
            accepted = await self.bus.log.read(subjects.facts(run).accepted, RunAccepted)
            point("finisher.read")
            await self._end(assembly.of_answer(settled, self.now()), accepted)
            return Done()

    async def finished(self, delivery: Delivery) -> Verdict:
        """End a run that was refused, or whose workflow is through."""
        command = await self._decoded(delivery, FinishRun)
        run = command.run
        with bound(run_id=run.run_id, tenant=run.tenant):
            point("finisher.taken")
            if delivery.delivered > 1 and await self._over(run):
                return Done()
            story = await read_story(self.bus, run)
            point("finisher.read")
            match command.outcome:
                case "workflow":
                    ended = await self._of_workflow(run, story, command)
                case "planned":
                    await complete(self.bus, run, story, ())
                    if story.planned is None:
                        raise Poison(f"the log has no plan of run {run.run_id}, which is all that it was to have")
                    ended = assembly.of_plan(run, story.planned, self.now())
                case "denied" | "failed":
                    if story.accepted is None:
                        await complete(self.bus, run, story, ())
                    category = story.category.category if story.category is not None else None
                    ended = assembly.of_refusal(command, category, story.spent(), self.now())
            await self._end(ended, story.accepted, story.planned)
            return Done()

    async def cancelled(self, delivery: Delivery) -> Verdict:
        """End a run that somebody does not want any more, unless it has ended; what is worked on for it is dropped."""
        command = await self._decoded(delivery, ControlRun)
        facts = subjects.events(command.tenant, command.run_id)
        accepted = await self.bus.log.read(facts.accepted, RunAccepted)
        run = accepted.run if accepted is not None else await self._queued(command)
        if run is None:
            log.info("cancel.unknown_run", extra={"run_id": command.run_id})
            return Done()
        with bound(run_id=run.run_id, tenant=run.tenant):
            point("finisher.taken")
            if await self._over(run):
                return Done()
            story = await read_story(self.bus, run)
            await complete(self.bus, run, story, ())
            category = story.category.category if story.category is not None else None
            through = await self._so_far(run, story)
            end = assembly.of_cancel(run, category, story.spent(), command.by, command.reason, through, self.now())
            await self._end(end, story.accepted, story.planned)
            await self._stop(run, "cancelled")
            return Done()

    async def _queued(self, command: ControlRun) -> Run | None:
        """Return a run that nobody has accepted yet, by its timer: ended now, nothing is bought for it later."""
        there = await self.bus.log.timer(command.run_id)
        return there[0].run if there is not None and there[0].run.tenant == command.tenant else None

    async def _stop(self, run: Run, reason: str) -> None:
        """Tell executors to drop what they do for a run: a hint, the log decides."""
        hint = CancelRun(run_id=run.run_id, reason=reason)
        await self.bus.client.publish(subjects.cancel(run.tenant, run.run_id), hint.encode())

    async def _so_far(self, run: Run, story: Story) -> Through | None:
        """Return how far a run's workflow came, by the planner's record of it; None for a run without one."""
        if story.planned is None or story.planned.workflow is None:
            return None
        progress, _ = await self.bus.runs.get(subjects.run_key(run.tenant, run.run_id), Progress)
        there = progress or Progress()
        return await self._through(run, story, there.states, there.fans)

    async def _through(self, run: Run, story: Story, states: Mapping[str, str], fans: Mapping[str, str]) -> Through:
        assert story.planned is not None
        assert story.planned.workflow is not None
        graph = await graph_of(self.bus, run, story.planned.workflow, lambda name: states.get(name) in _EXPANDED)
        await complete(self.bus, run, story, calls_of(graph, states, fans))
        return Through(graph, states, fans, story.tasks)

    async def overdue(self, delivery: Delivery) -> Verdict:
        """End a run whose time is over, unless it has ended."""
        run = (await self._decoded(delivery, DeadlinePassed)).run
        with bound(run_id=run.run_id, tenant=run.tenant):
            point("finisher.taken")
            if await self._over(run):
                return Done()
            story = await read_story(self.bus, run)
            await complete(self.bus, run, story, ())
            if await self._has_more_time(run, story.accepted):
                return Done()
            ended = await self._of_deadline(run, story)
            log.warning("run.deadline", extra={"waited_for": ended.fault.message if ended.fault else None})
            await self._end(ended, story.accepted, story.planned)
            await self._stop(run, "deadline")
            return Done()

    async def _has_more_time(self, run: Run, accepted: RunAccepted | None) -> bool:
        """Whether a run was promised more than this timer's time by another gateway that bore it too. (ADR 0024)"""
        if accepted is None:
            there = await self.bus.log.timer(run.run_id)
            return there is not None and there[0].run.deadline_at > run.deadline_at
        if accepted.run.deadline_at <= run.deadline_at:
            return False
        await self.bus.log.set_timer(accepted.run)
        return True

    async def _decoded(self, delivery: Delivery, kind: type[M]) -> M:
        body = await self.bus.payloads.unpack(delivery.data, delivery.headers)
        try:
            return kind.decode(body)
        except Unreadable as error:
            if kind is not FinishRun:  # what ends runs cannot be answered with itself
                await end_run_of(self.bus, body, str(error), outcome="denied")
            raise Poison(str(error)) from error

    async def _of_workflow(self, run: Run, story: Story, command: FinishRun) -> RunEnded:
        """Put a workflow's end together; an orchestrated one is presented, or its failure explained, by a model."""
        await complete(self.bus, run, story, ())
        if story.planned is None or story.planned.workflow is None:
            raise Poison(f"the log has no workflow of run {run.run_id}, which is to be finished")
        through = await self._through(run, story, command.states, command.fans)
        final = await self._presented(run, story, story.planned, through, command.fault)
        return assembly.of_workflow(
            run, story.planned, through, command.fault, final, story.decisions.get("acknowledge"), self.now()
        )

    async def _presented(
        self, run: Run, story: Story, planned: RunPlanned, through: Through, fault: Fault | None
    ) -> CallSettled | None:
        request = story.accepted.request if story.accepted is not None else None
        if planned.source != "model" or not isinstance(request, ChatRequest) or planned.workflow is None:
            return None
        presenters = self.presenters
        outputs = through.outputs()
        failure = next(iter(through.failures()), None) or (("the whole", fault) if fault is not None else None)
        if failure is None and through.is_one_text():
            return None  # it is the answer: a model that repeats it can only lose some of it
        if failure is None:
            results = sum(estimated_tokens(as_text(text)) for text in outputs.values())
            answer_tokens = min(MOST_ANSWER_TOKENS, max(LEAST_ANSWER_TOKENS, results + LEAST_ANSWER_TOKENS))
            budget_chars = CHARS_PER_TOKEN * max(2_000, presenters.finished_window_tokens - answer_tokens - 2_000)
            prompt = assembly.assembly_prompt(request, outputs, budget_chars)
            call = _call(run, FINAL, presenters.finished_role, presenters.finished_prompt, prompt, answer_tokens)
        else:
            prompt = assembly.failure_prompt(request, *failure, outputs)
            call = _call(run, EXPLAIN, presenters.failed_role, presenters.failed_prompt, prompt, None)
        loop = asyncio.get_running_loop()
        point("finisher.presenting")
        return await self.bus.live.expect(
            subjects.live(run.tenant, run.run_id).settled(call.purpose, call.call),
            subjects.facts(run).settled(call.purpose, call.call),
            CallSettled,
            ask=lambda: self.bus.log.send(subjects.call(run, call.lane, call.purpose, call.call), call),
            until=loop.time() + max(0.0, run.left_s(self.now())),
        )

    async def _of_deadline(self, run: Run, story: Story) -> RunEnded:
        category = story.category.category if story.category is not None else None
        through = await self._so_far(run, story)
        open_calls = await self._open_calls(run)
        waited_for = assembly.waits_for(story.accepted, story.category, story.planned, open_calls)
        settled = {**story.decisions, **story.tasks, **story.answers}
        if failed := [f"{name!r} ({call.fault.code})" for name, call in settled.items() if call.fault is not None]:
            waited_for = f"{waited_for}, after {', '.join(failed[:3])} failed"
        if (asked := await self._asked(run, through)) is not None:
            waited_for = asked
        return assembly.of_deadline(run, category, story.spent(), waited_for, through, self.now())

    async def _asked(self, run: Run, through: Through | None) -> str | None:
        """Return what a run waited for that no executor could do: a person, or a place among the running workflows."""
        if through is None:
            return None
        progress, _ = await self.bus.runs.get(subjects.run_key(run.tenant, run.run_id), Progress)
        if progress is None:
            return "a place among the running workflows (orchestration.maxConcurrentWorkflows)"
        if progress.held:
            return "somebody to resume it: it is paused"
        asked = [through.graph.nodes[name].output for name, letter in progress.states.items() if letter == State.ASKED]
        return f"a person's word about {', '.join(map(repr, asked[:5]))}" if asked else None

    async def _open_calls(self, run: Run) -> list[str]:
        """Return the calls that have attempts and no end, for saying what a run waited for."""
        seen: dict[str, bool] = {}
        for stored in await self.bus.log.facts(run.tenant, run.run_id):
            match subjects.fact_of(stored.subject).split("."):
                case ["call", _, name, "settled"]:
                    seen[name] = True
                case ["call", _, name, "attempt", _]:
                    seen.setdefault(name, False)
        return [repr(name) for name, settled in seen.items() if not settled]

    async def _end(self, ended: RunEnded, accepted: RunAccepted | None, planned: RunPlanned | None = None) -> None:
        """Write the session's turn, then the end, then take the timer back. (ADR 0004 says why in this order)

        When another has ended the run first, the session follows what it wrote.
        """
        run = ended.run
        compared = baseline_usd(ended, accepted, self.baseline())
        if compared is not None:
            ended = ended.model_copy(update={"baseline_usd": compared})
        await self._write_turn(run, ended, accepted)
        point("finisher.turn_written")
        written = await self.bus.log.write(subjects.facts(run).ended, ended)
        point("finisher.ended")
        if written.mine:
            category = ended.category or "none"
            metrics.RUNS_ENDED.labels(ended.outcome, category).inc()
            metrics.RUN_SECONDS.labels(category).observe(max(0.0, (ended.ended_at - run.born_at).total_seconds()))
        else:
            await self._write_turn(run, written.fact, accepted)
        await call_back(self.bus, accepted, self.now(), again=not written.mine)
        await self.bus.log.take_timer_back(run.run_id)
        point("finisher.timer_taken")
        await self._leave_runs(run)
        if planned is not None and planned.workflow is not None:
            await self._leave_place(run, timers=_has_timers(planned.workflow))
            point("finisher.place_left")

    async def _leave_runs(self, run: Run) -> None:
        """Count the run no longer among those of its key and tenant that go on. Costs nothing where nobody counts."""
        for account in run.places or ():
            await self.bus.budgets.update(f"runs.{account}", Places, lambda at: left(at, run.run_id))

    async def _leave_place(self, run: Run, *, timers: bool) -> None:
        """Give a workflow's place to another, and forget its tasks' times."""
        await self.bus.runs.forget(subjects.run_key(run.tenant, run.run_id))
        if timers:
            await self.bus.jetstream.purge(FINISHES, subjects.task_timer(run.run_id, "*"))

    async def _over(self, run: Run) -> bool:
        """Whether a run has ended; what whoever ended it may not have come to is then done again."""
        ended = await self.bus.log.read(subjects.facts(run).ended, RunEnded)
        if ended is None:
            return False
        accepted = await self.bus.log.read(subjects.facts(run).accepted, RunAccepted)
        await self._write_turn(run, ended, accepted)
        await call_back(self.bus, accepted, self.now(), again=True)
        await self.bus.log.take_timer_back(run.run_id)
        await self._leave_runs(run)
        await self._leave_place(run, timers=True)
        return True

    async def _write_turn(self, run: Run, ended: RunEnded, accepted: RunAccepted | None) -> None:
        if run.session_id is None or accepted is None or not isinstance(accepted.request, ChatRequest):
            return
        turn = assembly.turn_of(accepted, ended)
        if turn is None and accepted.request.new_session:
            return
        await self.bus.sessions.update(
            subjects.session_key(run.tenant, run.session_id),
            Session,
            lambda session: assembly.with_turn(session, turn, run.run_id),
            fresh=accepted.request.new_session,
        )


def _has_timers(workflow: Workflow) -> bool:
    tasks = [task for queue in workflow.workflow for task in queue.tasks]
    return any(
        task.timeout_s is not None or task.approve is not None or task.workflow is not None or task.expand
        for task in tasks
    )


def _call(run: Run, name: str, role: str, system: str, prompt: str, max_tokens: int | None) -> ExecuteCall:
    return ExecuteCall(
        run=run,
        call=name,
        purpose=Purpose.DECISION,
        lane=Lane.TEXT if name == FINAL else Lane.CONTROL,
        role=role,
        messages=(ChatMessage(role="system", content=system), user_message(prompt)),
        max_tokens=max_tokens,
        stream=name == FINAL,
        category=Category.H,
    )
