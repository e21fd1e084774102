"""Workflows as their users know them: steered while they run, taken up again, bounded, and honest about failures."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import subjects
from shared.bus.connection import Bus, open_bus
from shared.contracts.commands import ControlRun, Edit, Lineage, PlanRun, WorkflowRequest
from shared.contracts.events import ApprovalAsked, AttemptStarted, CallSettled, Progress, RunEnded
from shared.contracts.ids import Purpose, Verb, new_run_id
from shared.contracts.message import Run
from shared.contracts.workflow import Workflow
from shared.topology import Limits
from tests.system import System, eventually

M = "medium_ai"


class Steering:
    """A system, and what an outside program does with it over the bus."""

    def __init__(self, system: System, bus: Bus) -> None:
        self.system, self.bus = system, bus

    async def begin(
        self,
        tasks: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        lasts_s: float = 90,
        lineage: Lineage | None = None,
        plan_only: bool = False,
    ) -> Run:
        """Send a workflow of one graph queue, as an outside system does."""
        now = datetime.now(UTC)
        run = Run(run_id=new_run_id(), tenant="outside", born_at=now, deadline_at=now + timedelta(seconds=lasts_s))
        document = {"workflow": [{"type": "graph", "tasks": list(tasks)}], "variables": dict(variables or {})}
        request = WorkflowRequest(workflow=Workflow.model_validate(document))
        command = PlanRun(run=run, request=request, lineage=lineage, plan_only=plan_only)
        await self.bus.log.send(subjects.workflow(run), command)
        return run

    async def want(self, run: Run, verb: Verb, **fields: Any) -> None:
        command = ControlRun(run_id=run.run_id, tenant=run.tenant, verb=verb, by="a test", **fields)
        await self.bus.log.send(subjects.control(run.tenant, run.run_id, verb), command)

    async def result(self, run: Run) -> dict[str, Any]:
        """Return the result of a run that completes."""
        end = await self.ended(run)
        assert end.outcome == "completed", end.fault
        assert end.result is not None
        return dict(end.result)

    async def ended(self, run: Run, within_s: float = 60) -> RunEnded:
        facts = subjects.facts(run)
        found: list[RunEnded] = []

        async def over() -> bool:
            end = await self.bus.log.read(facts.ended, RunEnded)
            found.extend([end] if end is not None else [])
            return end is not None

        await eventually(over, within_s)
        return found[0]

    async def there(self, subject: str) -> None:
        await eventually(lambda: self.bus.log.exists(subject))

    async def settled(self, run: Run, call: str) -> CallSettled:
        subject = subjects.facts(run).settled(Purpose.TASK, call)
        await self.there(subject)
        found = await self.bus.log.read(subject, CallSettled)
        assert found is not None
        return found

    async def began(self, run: Run) -> datetime:
        """Return when the first task's call was claimed."""
        subject = subjects.facts(run).attempt(Purpose.TASK, "0-0", 1)
        found = await self.bus.log.read(subject, AttemptStarted)
        assert found is not None
        return found.started_at

    async def asked_of_models(self, run: Run) -> Counter[str]:
        """Return how often the simulator was asked for each call of a run."""
        return Counter(str(one["call"]) for one in await self.system.ledger() if one.get("run") == run.run_id)


@pytest.fixture
async def steering(tmp_path: Path) -> AsyncIterator[Steering]:
    async with System(tmp_path) as system:
        yield Steering(system, await open_bus(system.client))


def task(prompt: str, out: str, **more: Any) -> dict[str, Any]:
    return {"model": M, "prompt": prompt, "output_variable": out, **more}


async def slow(steering: Steering, contains: str, for_s: float, times: Any = 1) -> None:
    fault = {"kind": "delay", "delay_s": for_s}
    await steering.system.faults({"match": {"contains": contains}, "times": times, "fault": fault})


async def test_paused_starts_nothing_and_goes_on_where_it_was(steering: Steering) -> None:
    """What runs is finished and kept; nothing is started until somebody resumes it."""
    await slow(steering, "first thing", 6)
    run = await steering.begin([task("first thing", "a"), task("then {a}", "b")])
    facts = subjects.facts(run)
    await steering.there(facts.attempt(Purpose.TASK, "0-0", 1))
    await steering.want(run, Verb.PAUSE, reason="lunch")
    await steering.there(facts.hold(1))
    await steering.settled(run, "0-0")

    async def taken_in() -> bool:
        record, _ = await steering.bus.runs.get(f"{run.tenant}.{run.run_id}", Progress)
        return record is not None and record.held and record.states["0-0"] == "d"

    await eventually(taken_in)
    assert not await steering.bus.log.exists(facts.attempt(Purpose.TASK, "0-1", 1))
    await steering.want(run, Verb.RESUME)
    assert (await steering.ended(run)).outcome == "completed"
    assert (await steering.asked_of_models(run)) == {"task.0-0": 1, "task.0-1": 1}


async def test_cancelled_aborts_what_is_asked_and_books_its_cost(steering: Steering) -> None:
    """The call in flight is dropped and settled with its cost unknown; what was done is kept in the end."""
    await slow(steering, "endless", 80)
    run = await steering.begin([task("quick", "a"), task("endless {a}", "b"), task("never {b}", "c")])
    facts = subjects.facts(run)
    await steering.there(facts.attempt(Purpose.TASK, "0-1", 1))
    await steering.want(run, Verb.CANCEL, reason="changed my mind")
    end = await steering.ended(run, 30)
    assert (end.outcome, end.fault.code if end.fault else None) == ("cancelled", "cancelled")
    assert end.fault is not None
    assert "changed my mind" in end.fault.message
    assert end.failure is not None
    assert end.failure.kept == ("a",)
    assert end.failure.not_done == ("b", "c")
    dropped = await steering.settled(run, "0-1")  # long before it would have been answered
    assert dropped.fault is not None
    assert dropped.fault.code == "cancelled"
    assert not dropped.cost_known

    async def forgotten() -> bool:
        return await steering.bus.runs.get(f"{run.tenant}.{run.run_id}", Progress) == (None, 0)

    await eventually(forgotten)


@pytest.mark.parametrize(("verb", "outcome"), [(Verb.APPROVE, "completed"), (Verb.REJECT, "failed")])
async def test_a_person_decides(steering: Steering, verb: Verb, outcome: str) -> None:
    """The question stands on the log with what is asked; nothing is called before the answer."""
    gate = {"message": "Send {draft}?", "timeout_s": 60}
    run = await steering.begin([task("write", "draft"), task("send {draft}", "sent", approve=gate)])
    facts = subjects.facts(run)
    await steering.there(facts.asked("0-1"))
    asked = await steering.bus.log.read(facts.asked("0-1"), ApprovalAsked)
    assert asked is not None
    assert asked.message.startswith("Send [simulated]")
    assert not await steering.bus.log.exists(facts.attempt(Purpose.TASK, "0-1", 1))
    await steering.want(run, verb, task="sent", reason="because")
    end = await steering.ended(run)
    assert end.outcome == outcome
    if verb is Verb.REJECT:
        assert end.fault is not None
        assert end.fault.code == "rejected"
        assert "because" in end.fault.message


async def test_a_task_that_takes_too_long_is_over_and_is_stopped(steering: Steering) -> None:
    """`timeout_s` ends a task, tells its executor to drop it, and `on_error` decides what then."""
    await slow(steering, "endless", 80)
    run = await steering.begin(
        [task("endless", "a", timeout_s=0.5, on_error="substitute", substitute="nothing"), task("use {a}", "b")]
    )
    result = await steering.result(run)  # long before it would have been answered
    assert result["a"] == "nothing"
    assert "nothing" in result["b"]


async def test_an_output_of_the_wrong_shape_is_handed_back_once(steering: Steering) -> None:
    """The model is shown what is wrong; the repaired answer is the output; a second failure is the task's."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wrong = {"kind": "answer", "text": '{"n": "many"}'}
    await steering.system.faults({"match": {"contains": "count"}, "times": 1, "fault": wrong})
    run = await steering.begin([task("count", "c", output_schema=schema), task("see {c.n}", "d", when="c.n >= 0")])
    assert isinstance((await steering.result(run))["c"]["n"], int)
    assert (await steering.asked_of_models(run)) == {"task.0-0": 1, "task.0-0_r": 1, "task.0-1": 1}
    again = {"match": {"contains": "tally"}, "times": "forever", "fault": wrong}
    repaired = {"match": {"contains": "cannot be used"}, "times": "forever", "fault": wrong}
    await steering.system.faults(again, repaired)
    run = await steering.begin([task("tally", "c", output_schema=schema)])
    end = await steering.ended(run)
    assert end.fault is not None
    assert end.fault.code == "output_invalid"
    assert '"many" is not of type' in end.fault.message


async def test_a_retry_does_again_only_what_failed(steering: Steering) -> None:
    """Siblings that were paid for are taken over from the log; the new run says what it saved."""
    broken = {"kind": "status", "status": 400}
    await steering.system.faults({"match": {"contains": "item two"}, "times": "forever", "fault": broken})
    tasks = [
        task("a good one", "good"),
        task("item {item}", "all", for_each="{list}"),
        task("join {good} {all}", "joined"),
    ]
    run = await steering.begin(tasks, {"list": ["one", "two", "three"]})
    end = await steering.ended(run)
    assert end.outcome == "failed"
    assert end.failure is not None
    assert [one.task for one in end.failure.failed] == ["all"]
    assert "retry" in end.failure.next_steps[0]
    await steering.system.http.delete(f"{steering.system.simulator.url}/__sim/faults")
    again = await steering.begin(tasks, lineage=Lineage(parent=run.run_id, kind="retry"))
    result = await steering.result(again)
    end = await steering.ended(again)
    assert set(await steering.asked_of_models(again)) == {"task.0-1_1", "task.0-2"}
    assert end.spent.reused == 3
    assert end.spent.saved_usd > 0
    assert len(result["all"]) == 3


async def test_a_fork_does_again_what_follows_from_the_edit(steering: Steering) -> None:
    """With another prompt in the middle, what stands before it and beside it is taken over."""
    tasks = [task("root", "a"), task("left {a}", "b"), task("right {a}", "c"), task("join {b} {c}", "d")]
    run = await steering.begin(tasks)
    first = await steering.result(run)
    lineage = Lineage(parent=run.run_id, kind="fork", edits={"c": Edit(prompt="another {a}")})
    fork = await steering.begin(tasks, lineage=lineage)
    second = await steering.result(fork)
    assert set(await steering.asked_of_models(fork)) == {"task.0-2", "task.0-3"}
    assert second["b"] == first["b"]
    assert second["c"] != first["c"]
    wrong = await steering.begin(tasks, lineage=Lineage(parent=run.run_id, kind="fork", start_at=("nobody",)))
    refused = await steering.ended(wrong)
    assert refused.outcome == "denied"
    assert refused.fault is not None
    assert "nobody" in refused.fault.message


async def test_a_model_writes_a_part_of_the_workflow(steering: Steering) -> None:
    """The answer of a task with `expand` is checked, kept on the log and run in its place."""
    written = (
        '{"workflow": [{"type": "linear", "tasks": [{"model": "fast_ai", "prompt": "one"}, '
        '{"model": "fast_ai", "prompt": "two"}]}, {"type": "inline", "tasks": '
        '[{"model": "fast_ai", "prompt": "sum {task_1_1} {task_1_2}", "output_variable": "sum"}]}]}'
    )
    answer = {"kind": "answer", "text": written}
    await steering.system.faults({"match": {"contains": "write a workflow"}, "times": 1, "fault": answer})
    run = await steering.begin(
        [
            {"model": "sub_master_ai", "prompt": "write a workflow", "expand": True, "output_variable": "part"},
            task("use {part}", "whole"),
        ]
    )
    end = await steering.ended(run)
    assert end.outcome == "completed", end.fault
    calls = {"task.0-0", "task.0-0_0-0", "task.0-0_0-1", "task.0-0_1-0", "task.0-1"}
    assert set(await steering.asked_of_models(run)) == calls


async def test_more_workflows_than_places_wait_in_order(tmp_path: Path) -> None:
    """With two places, six runs are never more than two at a time, begin in order, and all end."""

    def two_places(document: dict[str, Any]) -> None:
        document["orchestration"]["maxConcurrentWorkflows"] = 2

    async with System(tmp_path, configure=two_places, limits=Limits(max_workflows=2)) as system:
        steering = Steering(system, await open_bus(system.client))
        await slow(steering, "wait a little", 0.4, "forever")
        runs = []
        for number in range(6):
            runs.append(await steering.begin([task(f"wait a little {number}", "a")]))
            await steering.there(subjects.events("outside", runs[-1].run_id).plan)
        most = 0
        waiting = set(range(6))
        until = time.monotonic() + 60
        while waiting:
            assert time.monotonic() < until
            most = max(most, (await system.client.jetstream().stream_info("KV_runs")).state.messages)
            over = {
                n for n in waiting if await steering.bus.log.exists(subjects.events("outside", runs[n].run_id).ended)
            }
            waiting -= over
        assert most <= 2
        ends = [await steering.ended(run) for run in runs]
        assert [end.outcome for end in ends] == ["completed"] * 6
        started = [await steering.began(run) for run in runs]
        assert all(one < next_but_one for one, next_but_one in zip(started, started[2:], strict=False))
        at_once = [sum(there < at < end.ended_at for there, end in zip(started, ends, strict=True)) for at in started]
        assert max(at_once) == 1, "two at a time: beside one that starts there is one more"

        async def empty() -> bool:
            return (await system.client.jetstream().stream_info("KV_runs")).state.messages == 0

        await eventually(empty)


async def test_only_planned_is_not_carried_out(steering: Steering) -> None:
    """A run that is only to be planned ends with its workflow, and no model was asked for a task."""
    run = await steering.begin([task("never asked", "a")], plan_only=True)
    result = await steering.result(run)
    assert result["workflow"][0]["tasks"][0]["prompt"] == "never asked"
    assert not await steering.asked_of_models(run)


async def test_a_workflow_that_has_spent_its_money_starts_nothing_more(tmp_path: Path) -> None:
    """`orchestration.limits.maxCostUsd`: what was begun is finished and kept, the end says what was spent."""

    def cheap(document: dict[str, Any]) -> None:
        document["orchestration"]["limits"] = {"maxCostUsd": 1e-9}

    async with System(tmp_path, configure=cheap) as system:
        steering = Steering(system, await open_bus(system.client))
        run = await steering.begin([task("one", "a"), task("two {a}", "b")])
        end = await steering.ended(run)
        assert end.outcome == "failed"
        assert end.fault is not None
        assert end.fault.code == "over_budget"
        assert end.failure is not None
        assert (end.failure.kept, end.failure.not_done) == (("a",), ("b",))


async def test_a_graph_takes_as_long_as_its_longest_path(steering: Steering) -> None:
    """Twelve tasks of different lengths: the run is over when the longest chain is, not when all queues are."""
    lengths = [0.9, 0.3, 0.6, 0.3, 1.2, 0.3, 0.3, 0.6, 0.9, 0.3, 0.6, 0.3]
    needs = [[], [], [], [0], [1], [2], [3, 4], [4], [5], [6, 7], [8], [9, 10]]
    rules = [
        {"match": {"contains": f"task number {n}."}, "times": "forever", "fault": {"kind": "delay", "delay_s": length}}
        for n, length in enumerate(lengths)
    ]
    over = [0.0] * 12
    for n, before in enumerate(needs):
        over[n] = lengths[n] + max((over[one] for one in before), default=0.0)
    tasks = [task(f"task number {n}.", f"t{n}", needs=[f"t{one}" for one in before]) for n, before in enumerate(needs)]

    async def took_s() -> float:
        run = await steering.begin(tasks)
        end = await steering.ended(run)
        assert end.outcome == "completed"
        return (end.ended_at - run.born_at).total_seconds()

    async def as_long() -> bool:
        own_s = await took_s()  # what the machine takes for tasks of no length
        await steering.system.faults(*rules)
        whole_s = await took_s()
        await steering.system.http.delete(f"{steering.system.simulator.url}/__sim/faults")
        print(f"longest path {max(over):.3f} s, took {whole_s:.3f} s, one after the other {sum(lengths):.1f} s")
        assert max(over) <= whole_s
        return whole_s - own_s < max(over) + 0.5 * (sum(lengths) - max(over))

    await eventually(as_long)  # of some times once is enough: a process may stand still meanwhile


async def test_the_time_for_a_question_is_not_the_tasks(steering: Steering) -> None:
    """A task that was approved in time keeps running when the time for the question is over, and has its own."""
    await slow(steering, "takes its time", 8.5)
    gate = {"timeout_s": 8, "default": "reject"}
    run = await steering.begin(
        [task("takes its time", "a", approve=gate), task("endless", "b", approve=gate, timeout_s=1)]
    )
    facts = subjects.facts(run)
    await slow(steering, "endless", 80)
    for name, output in (("0-0", "a"), ("0-1", "b")):
        await steering.there(facts.asked(name))
        await steering.want(run, Verb.APPROVE, task=output)
        await steering.there(facts.approval(name))
    end = await steering.ended(run)
    assert (await steering.settled(run, "0-0")).outcome == "answered"
    assert end.failure is not None
    assert [(one.task, one.code) for one in end.failure.failed] == [("b", "task_timeout")]


async def test_a_run_of_many_facts_is_read_whole(steering: Steering) -> None:
    """A fan of 600 leaves more facts than one read of the log gives: all of them are found, in order."""
    run = await steering.begin([task("item {index}", "all", for_each="{list}")], {"list": list(range(600))})
    assert len((await steering.result(run))["all"]) == 600
    found = await steering.bus.log.facts(run.tenant, run.run_id)
    assert len(found) == 3 + 2 * 600
    assert [one.seq for one in found] == sorted({one.seq for one in found})
