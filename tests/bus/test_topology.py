"""The table of streams, consumers and subjects fits together: nothing is said that nobody hears, or that two take."""

from itertools import combinations

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType

from shared import subjects, topology
from shared.contracts.ids import Lane, Priority, Purpose
from shared.contracts.message import Run
from shared.subjects import Facts
from shared.topology import (
    CALLS,
    CATEGORIZER,
    DEAD,
    EVENTS,
    EXECUTOR,
    EXECUTOR_RECONCILE,
    FINISHER,
    FINISHER_ANSWERS,
    FINISHER_CALLBACKS,
    FINISHER_CANCELS,
    FINISHER_DEADLINES,
    FINISHES,
    PLANNER,
    PLANNER_APPROVALS,
    PLANNER_BEGIN,
    PLANNER_CONTROLS,
    PLANNER_DUE,
    PLANNER_SCHEDULES,
    PLANNER_SETTLED,
    REQUESTS,
    WORKFLOWS,
    Feed,
    Limits,
    buckets,
    feeds,
    streams,
)
from tests.bus.ground import Ground

STREAMS = {str(stream.name): stream for stream in streams(Limits())}
BUCKETS = {str(bucket.name): bucket for bucket in buckets(Limits())}


def run(priority: Priority = Priority.HIGH) -> Run:
    return Run.model_validate(
        {
            "run_id": "r1",
            "tenant": "acme",
            "priority": priority,
            "born_at": "2026-11-01T12:00:00Z",
            "deadline_at": "2026-11-01T12:05:00Z",
        }
    )


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern takes a subject (which may be a pattern itself)."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or (token != "*" and token != tokens[place]):
            return False
    return len(wanted) == len(tokens)


def overlap(one: str, other: str) -> bool:
    """Whether some subject is taken by both patterns."""
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if ">" in {a, b}:
            return True
        if "*" not in {a, b} and a != b:
            return False
    return len(one.split(".")) == len(other.split("."))


def keepers(subject: str) -> list[str]:
    return [name for name, stream in STREAMS.items() for taken in stream.subjects or [] if matches(taken, subject)]


def takers(subject: str) -> list[str]:
    return [feed.durable for feed in feeds() if matches(feed.filter, subject)]


EVENT = subjects.events("acme", "r1")


@pytest.mark.parametrize("priority", Priority)
def test_each_command_is_kept_by_one_stream_and_taken_by_one_consumer(priority: Priority) -> None:
    of = run(priority)
    wanted = {
        subjects.request("acme", priority): (REQUESTS, f"categorizer-{priority}"),
        subjects.workflow(of): (WORKFLOWS, f"planner-{priority}"),
        subjects.finish(of): (FINISHES, f"finisher-{priority}"),
        subjects.deadline("r1"): (FINISHES, "finisher-deadlines"),
        subjects.reconcile(of, Purpose.TASK, "0-1", 1): (CALLS, "executor-reconcile"),
        subjects.callback("acme", "r1"): (FINISHES, "finisher-callbacks"),
    }
    for lane in Lane:
        for purpose in Purpose:
            wanted[subjects.call(of, lane, purpose, "0-1")] = (CALLS, f"executor-{lane}-{priority}")
    for subject, (stream, durable) in wanted.items():
        assert keepers(subject) == [stream], subject
        assert takers(subject) == [durable], subject


@pytest.mark.parametrize(
    ("subject", "takers_"),
    [
        (EVENT.accepted, []),
        (EVENT.category, []),
        (EVENT.plan, []),
        (EVENT.ended, []),
        (EVENT.attempt(Purpose.ANSWER, "answer", 1), []),
        (EVENT.reconciled(Purpose.TASK, "0-1", 1), []),
        (EVENT.settled(Purpose.ANSWER, "answer"), ["finisher-answers"]),
        (EVENT.settled(Purpose.TASK, "0-1"), ["planner-settled"]),
        (EVENT.settled(Purpose.DECISION, "plan-0"), []),
    ],
)
def test_each_fact_is_on_the_log_and_taken_by_who_goes_on(subject: str, takers_: list[str]) -> None:
    assert keepers(subject) == [EVENTS]
    assert takers(subject) == takers_


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        (subjects.wait(run(), Purpose.TASK, "0-1"), CALLS),
        (subjects.inquiry(run(), Purpose.TASK, "0-1", 1), CALLS),
        (subjects.timer("r1"), FINISHES),
        (subjects.callback_wait("acme", "r1"), FINISHES),
        (EVENT.callback(1), EVENTS),
        (subjects.dead("executor"), DEAD),
        (subjects.canary("executor"), EVENTS),
    ],
)
def test_what_waits_and_what_is_dead_is_kept_and_taken_by_nobody(subject: str, stream: str) -> None:
    assert keepers(subject) == [stream]
    assert takers(subject) == []


@pytest.mark.parametrize(
    "subject",
    [
        subjects.token("acme", "r1", "c"),
        subjects.cancel("acme", "r1"),
        subjects.working("e.c"),
        subjects.limit_wait("openrouter", "acme", "high"),
        "segue.live.a.b",
    ],
)
def test_hints_are_kept_by_nobody(subject: str) -> None:
    assert keepers(subject) == []


def test_a_schedule_and_its_target_are_in_one_stream() -> None:
    """The server refuses others (10190), and its stream has to allow schedules."""
    for waits, fires in (
        (subjects.timer("r1"), subjects.deadline("r1")),
        (subjects.callback_wait("acme", "r1"), subjects.callback("acme", "r1")),
        (subjects.wait(run(), Purpose.TASK, "0-1"), subjects.call(run(), Lane.TEXT, Purpose.TASK, "0-1")),
        (subjects.inquiry(run(), Purpose.TASK, "0-1", 1), subjects.reconcile(run(), Purpose.TASK, "0-1", 1)),
    ):
        assert keepers(waits) == keepers(fires)
        assert STREAMS[keepers(waits)[0]].allow_msg_schedules


def test_no_two_streams_and_no_two_consumers_take_the_same() -> None:
    """Filters of a work queue's consumers must be disjoint (10100); on the log each settlement has one reader."""
    taken = [(name, subject) for name, stream in STREAMS.items() for subject in stream.subjects or []]
    for (one, a), (other, b) in combinations(taken, 2):
        assert not overlap(a, b), (one, other)
    for left, right in combinations(feeds(), 2):
        assert left.stream != right.stream or not overlap(left.filter, right.filter), (left, right)


def test_names_are_there_once_and_every_consumer_reads_its_own_stream() -> None:
    assert len({feed.durable for feed in feeds()}) == len(feeds())
    assert len(STREAMS) == len(streams(Limits()))
    for feed in feeds():
        assert any(matches(taken, feed.filter) for taken in STREAMS[feed.stream].subjects or []), feed


def test_every_consumer_of_a_service_is_provisioned() -> None:
    lanes = [feed for lane in Lane for feed in EXECUTOR[lane]]
    own: list[Feed] = [
        *CATEGORIZER, *PLANNER, *PLANNER_BEGIN, *PLANNER_CONTROLS, PLANNER_DUE, PLANNER_SCHEDULES, PLANNER_APPROVALS,
        PLANNER_SETTLED,
        *lanes, EXECUTOR_RECONCILE, *FINISHER, FINISHER_CANCELS, FINISHER_DEADLINES, FINISHER_CALLBACKS,
        FINISHER_ANSWERS,
    ]  # fmt: skip
    assert sorted(feed.durable for feed in feeds()) == sorted(feed.durable for feed in own)
    for prioritised in (CATEGORIZER, PLANNER, PLANNER_BEGIN, *EXECUTOR.values(), FINISHER):
        assert [feed.name for feed in prioritised] == list(Priority)


def test_consumers_retry_for_ever_and_soon() -> None:
    for feed in feeds():
        config = feed.config()
        assert (config.max_deliver, config.ack_wait, config.max_ack_pending) == (-1, 2.0, 10_000)
        assert feed.from_log is (feed.stream == EVENTS)


def test_the_log_is_republished_beside_itself() -> None:
    republish = STREAMS[EVENTS].republish
    assert republish is not None
    assert republish.src is not None
    assert republish.dest == "segue.live.>"
    for fact in (EVENT.accepted, EVENT.settled(Purpose.TASK, "0-1")):
        assert matches(republish.src, fact)
        assert fact.replace("segue.event.", "segue.live.") in {
            subjects.live("acme", "r1").accepted,
            subjects.live("acme", "r1").settled(Purpose.TASK, "0-1"),
        }
    assert not matches(republish.src, subjects.canary("x"))
    assert all(not overlap("segue.live.>", taken) for stream in STREAMS.values() for taken in stream.subjects or [])


def test_a_change_of_a_key_is_heard_once_it_is_stored() -> None:
    """By its name alone: what is in a record is read from the bucket."""
    republish = BUCKETS["KV_keys"].republish
    assert republish is not None
    assert (republish.src, republish.dest, republish.headers_only) == ("$KV.keys.>", "segue.access.>", True)
    assert subjects.record_of(subjects.access("key.abc")) == "key.abc"
    assert all(not overlap("segue.access.>", taken) for stream in STREAMS.values() for taken in stream.subjects or [])


def test_a_minutes_counter_is_kept_by_one_stream() -> None:
    assert keepers(subjects.rate("key.abc")) == ["RATES"]


@pytest.mark.parametrize("replicas", [1, 3])
def test_everything_is_on_disk_on_as_many_servers_and_bounded_in_age_or_number(replicas: int) -> None:
    limits = Limits(
        max_queue_depth=9,
        max_queue_depth_per_tenant=4,
        retention_days=2,
        session_days=3,
        artifact_days=5,
        replicas=replicas,
    )
    for stream in (*streams(limits), *buckets(limits)):
        assert stream.storage == StorageType.FILE
        assert stream.num_replicas == replicas
        if stream.name == "KV_registry":  # what people wrote does not age
            assert (stream.max_age, stream.max_msgs, stream.max_msgs_per_subject) == (0, 100_000, 64)
        elif stream.name == "KV_keys":
            assert (stream.max_age, stream.max_msgs, stream.discard) == (0, 20_000, DiscardPolicy.NEW)
        elif stream.name == "KV_budgets":  # a month's sum has to outlive the month
            assert (stream.max_age, stream.max_msgs) == (62 * 86_400, 80_000)
        elif stream.name == "RATES":
            assert (stream.max_age, stream.max_msgs, stream.allow_msg_counter) == (180, 5_000_000, True)
            assert stream.max_msgs_per_subject == -1  # the steps of a counter tell when they were taken
        elif stream.name in {"KV_breakers", "KV_limits", "KV_cache"}:
            assert stream.max_age == {"KV_cache": 3_600}.get(stream.name, 86_400)
            assert 0 < (stream.max_msgs or 0) <= 100_000
        elif stream.name == "OBJ_artifacts":
            assert stream.max_age == 5 * 86_400
        elif stream.retention != RetentionPolicy.WORK_QUEUE:
            assert stream.max_age in {2 * 86_400, 3 * 86_400}
    by_name = {stream.name: stream for stream in streams(limits)}
    for name in (REQUESTS, WORKFLOWS):
        assert (by_name[name].max_msgs, by_name[name].discard) == (9, DiscardPolicy.NEW)
    assert by_name[REQUESTS].max_msgs_per_subject == 4
    assert by_name[REQUESTS].discard_new_per_subject


def test_buckets_are_laid_out_as_clients_expect() -> None:
    for name in (topology.SESSIONS, topology.RUNS):
        assert BUCKETS[f"KV_{name}"].subjects == [f"$KV.{name}.>"]
        assert BUCKETS[f"KV_{name}"].max_msgs_per_subject == 1
    assert BUCKETS["OBJ_artifacts"].subjects == ["$O.artifacts.C.>", "$O.artifacts.M.>"]
    assert BUCKETS["OBJ_payloads"].subjects == ["$O.payloads.C.>", "$O.payloads.M.>"]


# Subjects and back


def test_a_calls_subject_says_whose_it_is() -> None:
    subject = subjects.call(run(), Lane.VIDEO, Purpose.TASK, "0-1")
    assert subjects.call_of(subject) == ("acme", "r1", "task", "0-1")
    for other in (subjects.workflow(run()), EVENT.accepted, "", "segue.call", f"{subject}.more"):
        assert subjects.call_of(other) is None


def test_subjects_are_read_as_they_were_made() -> None:
    assert subjects.cancelled(subjects.cancel("acme", "r1")) == ("acme", "r1")
    assert subjects.claim_of(subjects.working("executor-7.claim")) == "executor-7.claim"
    for facts in (EVENT, subjects.live("acme", "r1")):
        assert subjects.fact_of(facts.settled(Purpose.TASK, "0-1")) == "call.task.0-1.settled"
        assert subjects.fact_of(facts.accepted) == "accepted"


def test_a_runs_patterns_take_its_facts() -> None:
    facts: Facts = EVENT
    everything = [
        facts.accepted, facts.category, facts.plan, facts.ended,
        *(facts.settled(purpose, "c") for purpose in Purpose),
        *(facts.attempt(purpose, "c", 2) for purpose in Purpose),
    ]  # fmt: skip
    assert len(set(everything)) == len(everything)
    assert all(matches(facts.all, fact) for fact in everything)
    settled = [fact for fact in everything if any(matches(one, fact) for one in facts.all_settled)]
    assert settled == [facts.settled(purpose, "c") for purpose in Purpose]


async def test_the_server_agrees_with_the_table(ground: Ground) -> None:
    """Every consumer's filter has its stream, by the server's own word."""
    names = {subject: (await ground.js().find_stream_name_by_subject(subject)) for subject in _one_of_each()}
    assert names == {subject: keepers(subject)[0] for subject in names}


def _one_of_each() -> list[str]:
    of = run()
    return [
        subjects.request("acme", Priority.LOW),
        subjects.workflow(of),
        subjects.call(of, Lane.TEXT, Purpose.TASK, "0-1"),
        subjects.wait(of, Purpose.TASK, "0-1"),
        subjects.finish(of),
        subjects.timer("r1"),
        subjects.deadline("r1"),
        subjects.dead("executor"),
        subjects.canary("executor"),
        EVENT.ended,
    ]
