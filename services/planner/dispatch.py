"""Send what is due of a workflow: a call, a question to a person, or at once the end of what nobody has to do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from services.planner import reading
from services.planner.advance import Due
from services.planner.plans import Known
from services.planner.tasks import Cast, question, task_call
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.delivery import Poison
from shared.contracts.commands import CancelRun, TaskDue
from shared.contracts.events import ApprovalAsked, ApprovalDecided, CallSettled, Progress
from shared.contracts.ids import Category, Purpose
from shared.contracts.message import Fault, Run
from shared.workflows.graph import Node
from shared.workflows.outputs import Missing, Unfit, Values, output, sources
from shared.workflows.validation import Catalogue


@dataclass(slots=True)
class Dispatch:
    """What sending needs; made in `app.py`. A change of the registry puts another cast and catalogue in place."""

    bus: Bus
    cast: Cast
    catalogue: Catalogue
    now: Callable[[], datetime]

    async def send(
        self, run: Run, known: Known, progress: Progress, due: Due, values: Values, told: dict[str, CallSettled]
    ) -> None:
        """Send a call, ask a person, or settle at once what cannot be done or was done by the parent."""
        if due.question:
            await self._ask(run, known, progress, due.node, values, told)
            return
        if known.planned.parent is not None and await self._taken_over(run, known, due):
            return
        handed_back = None
        if due.repair:
            answer = await self.settled_of(run, due.name.removesuffix("_r"), told)
            handed_back = (
                answer.text or "",
                reading.problems(known.graph, due.node, answer.text or "", self.catalogue),
            )
        category = Category.H if known.planned.source == "model" else None
        while True:
            try:
                call = task_call(run, known.graph, due, values, self.cast, category, handed_back)
                break
            except Missing as missing:
                values[missing.name] = await self.output(run, known, progress, missing.name, told)
            except Unfit as unfit:
                await self.settle_as_failed(run, due.name, due.node, unfit.code, str(unfit))
                return
        if due.node.task.timeout_s is not None:
            await self._set_timer(run, due.name, due.node.task.timeout_s)
        await self.bus.log.send(subjects.call(run, call.lane, call.purpose, call.call), call)

    async def output(
        self, run: Run, known: Known, progress: Progress, name: str, told: dict[str, CallSettled]
    ) -> JsonValue:
        """Return what a task put out, read from the log once."""
        node, states, fans = known.graph.nodes[name], progress.states, progress.fans
        texts = {}
        for call in sources(known.graph, node, states, fans):
            texts[call] = (await self.settled_of(run, call, told)).text or ""
        return output(known.graph, node, states, fans, texts)

    async def settled_of(self, run: Run, call: str, told: dict[str, CallSettled]) -> CallSettled:
        """Return how a call that is over was settled."""
        if call not in told:
            subject = subjects.facts(run).settled(Purpose.TASK, call)
            settled = await self.bus.log.read(subject, CallSettled)
            if settled is None:
                raise Poison(f"the log has no output of task {call!r} although a task after it is ready")
            told[call] = settled
        return told[call]

    async def _set_timer(self, run: Run, task: str, after_s: float, *, question: bool = False) -> datetime:
        """Have the bus say when a task's time is over; a question's is another than that of the call it allows."""
        at = min(self.now() + timedelta(seconds=after_s), run.deadline_at)
        name = f"{task}_q" if question else task
        timer, target = subjects.task_timer(run.run_id, name), subjects.task_due(run.run_id, name)
        await self.bus.log.send_at(timer, target, TaskDue(run=run, task=task, question=question), at)
        return at

    async def settle_as_failed(
        self, run: Run, call: str, node: Node, code: str, message: str, *, status: int | None = None
    ) -> bool:
        """Settle a task as failed, unless it is settled already; whether this did it. It comes back by the log."""
        fact = CallSettled(
            run=run,
            call=call,
            purpose=Purpose.TASK,
            outcome="failed",
            fault=Fault(type="logical", code=code, message=message, status=status),
            role=node.task.model or "",
            asked_role=node.task.model or "",
        )
        subject = subjects.facts(run).settled(Purpose.TASK, call)
        return (await self.bus.log.write(subject, fact)).mine

    async def _ask(
        self, run: Run, known: Known, progress: Progress, node: Node, values: Values, told: dict[str, CallSettled]
    ) -> None:
        """Say on the log that a person is asked, and set the time by which something is decided."""
        approve = node.task.approve
        assert approve is not None
        if known.planned.parent is not None and node.name.split("_")[0] not in known.planned.again:
            parents = subjects.events(run.tenant, known.planned.parent).approval(node.name)
            decided = await self.bus.log.read(parents, ApprovalDecided)
            if decided is not None and decided.approved:
                await self.bus.log.write(
                    subjects.facts(run).approval(node.name), decided.model_copy(update={"run": run})
                )
                return
        while True:
            try:
                message = question(known.graph, node, values)
                break
            except Missing as missing:
                values[missing.name] = await self.output(run, known, progress, missing.name, told)
        left_s = max(0.0, run.left_s(self.now()))
        until = await self._set_timer(run, node.name, min(approve.timeout_s or left_s, left_s), question=True)
        asked = ApprovalAsked(
            run=run, task=node.name, output=node.output, message=message, until=until, default=approve.default
        )
        await self.bus.log.write(subjects.facts(run).asked(node.name), asked)

    async def _taken_over(self, run: Run, known: Known, due: Due) -> bool:
        """Take a call's answer over from the parent's log; False: it has none that can be used."""
        planned = known.planned
        assert planned.parent is not None
        if due.name.split("_")[0] in planned.again:
            return False
        theirs = subjects.events(run.tenant, planned.parent).settled(Purpose.TASK, due.name)
        settled = await self.bus.log.read(theirs, CallSettled)
        if settled is None or settled.outcome != "answered":
            return False
        if due.repair and reading.problems(known.graph, due.node, settled.text or "", self.catalogue):
            return False
        fact = settled.model_copy(
            update={
                "run": run,
                "reused_from": settled.reused_from or planned.parent,
                "saved_usd": settled.saved_usd or settled.cost_usd,
                "cost_usd": 0.0,
                "cost_known": True,
                "usage": type(settled.usage)(),
                "failed": (),
                "unknown": (),
            }
        )
        await self.bus.log.write(subjects.facts(run).settled(Purpose.TASK, due.name), fact)
        return True

    async def stop_call(self, run: Run, call: str, reason: str) -> None:
        """Tell whoever works on a call to drop it: a hint, the log decides.

        It stays on its queue: whoever takes it finds it settled, buys nothing, and accounts for what it cost so far.
        """
        hint = CancelRun(run_id=run.run_id, reason=reason, call=call)
        await self.bus.client.publish(subjects.cancel(run.tenant, run.run_id), hint.encode())
