"""Every stream, consumer and bucket: one table. The provisioner declares it; services only bind to it.

Sizes and ages come from the configuration (`Limits`); who writes and who reads stands beside each row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from shared.contracts.ids import Lane, Priority, Purpose, Verb
from shared.subjects import ROOT

REQUESTS = "REQUESTS"
WORKFLOWS = "WORKFLOWS"
CALLS = "CALLS"
FINISHES = "FINISHES"
EVENTS = "EVENTS"
DEAD = "DEAD"

SESSIONS = "sessions"
RUNS = "runs"
PAYLOADS = "payloads"
REGISTRY = "registry"
BREAKERS = "breakers"
LIMITS = "limits"
CACHE = "cache"
ARTIFACTS = "artifacts"
KEYS = "keys"
BUDGETS = "budgets"
RATES = "RATES"

DAY_S = 86_400.0
ACK_WAIT_S = 2.0
"""A killed worker's message is another's after this long (heartbeats every 0.5 s keep it for a living one)."""
MAX_MESSAGE_BYTES = 256 * 1024
"""A larger body travels by reference, see `shared.bus.payloads`."""
MAX_ACK_PENDING = 10_000
MARGIN_S = 1.0
BUDGET_DAYS = 62
"""A month's sum is there until the next one's, whoever asks or not."""
RATE_LIVES_S = 180.0
"""That a request was counted is known for this long: longer than the window that it is counted in, twice."""
MOST_STEPS = 5_000_000
"""Of those counters together, beyond what gateways can take in a window."""
MOST_KEYS = 20_000
"""Keys and tenants that are known."""
LONG_WINDOW_S = 10.0
REGISTRY_VERSIONS = 64
"""Of one template, schedule, role or provider that are kept."""


@dataclass(frozen=True, slots=True)
class Window:
    """So many requests in so many seconds, wherever the seconds begin."""

    name: str
    """`second`, `minute` or `day`."""
    seconds: float
    most: int

    @property
    def lives_s(self) -> float:
        """How long a grant is kept: its window, and how much later than its grant a request may be with the provider.

        Twice the margin where that costs little: an executor's first requests on a busy machine are late.
        """
        return self.seconds + (MARGIN_S if self.seconds < LONG_WINDOW_S else 2 * MARGIN_S)


def stream_of(limit: str, window: Window) -> str:
    """Return the name of the stream that has a limit's grants of a window."""
    return f"LIMITS_{limit}_{window.name}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What of the topology the configuration decides."""

    max_queue_depth: int = 10_000
    max_queue_depth_per_tenant: int = 5_000
    """Of one tenant and priority, so that one tenant cannot fill the queue."""
    max_workflows: int = 1_000
    """That run at the same time; the others wait for their turn."""
    retention_days: float = 30
    session_days: float = 30
    replicas: int = 1
    cache_s: float = 3_600
    """For how long an answer stands for the very same call."""
    artifact_days: float = 7
    """For how long images and videos that models made are kept."""
    grants: Mapping[str, tuple[Window, ...]] = field(default_factory=dict)
    """By limit: how often a provider may be asked."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One durable consumer: the work of one kind that a service's copies share."""

    stream: str
    durable: str
    filter: str
    name: str = "medium"
    """Which share of a pool it takes: a priority, or `medium` where there is none."""
    from_log: bool = False
    """It reads the log: re-created, it starts at what is young enough to matter."""

    def config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self.durable,
            filter_subject=self.filter,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=ACK_WAIT_S,
            max_deliver=-1,
            max_ack_pending=MAX_ACK_PENDING,
            max_waiting=2048,
        )


def _by_priority(stream: str, service: str, pattern: str) -> tuple[Feed, ...]:
    return tuple(Feed(stream, f"{service}-{p}", pattern.format(p=p), name=p) for p in Priority)


CATEGORIZER = _by_priority(REQUESTS, "categorizer", f"{ROOT}.request.*.{{p}}")
PLANNER = _by_priority(WORKFLOWS, "planner", f"{ROOT}.workflow.*.{{p}}.*")
PLANNER_BEGIN = _by_priority(FINISHES, "planner-begin", f"{ROOT}.begin.{{p}}.*")
PLANNER_CONTROLS = tuple(
    Feed(FINISHES, f"planner-{verb}", f"{ROOT}.control.*.*.{verb}") for verb in Verb if verb is not Verb.CANCEL
)
PLANNER_DUE = Feed(FINISHES, "planner-due", f"{ROOT}.due.task.*.*")
PLANNER_SCHEDULES = Feed(FINISHES, "planner-schedules", f"{ROOT}.due.schedule.*.*")
PLANNER_APPROVALS = Feed(EVENTS, "planner-approvals", f"{ROOT}.event.*.*.approval.*", from_log=True)
PLANNER_SETTLED = Feed(EVENTS, "planner-settled", f"{ROOT}.event.*.*.call.{Purpose.TASK}.*.settled", from_log=True)
EXECUTOR: Mapping[Lane, tuple[Feed, ...]] = {
    lane: _by_priority(CALLS, f"executor-{lane}", f"{ROOT}.call.{lane}.{{p}}.>") for lane in Lane
}
EXECUTOR_RECONCILE = Feed(CALLS, "executor-reconcile", f"{ROOT}.reconcile.>")
FINISHER = _by_priority(FINISHES, "finisher", f"{ROOT}.finish.{{p}}.*")
FINISHER_CANCELS = Feed(FINISHES, "finisher-cancels", f"{ROOT}.control.*.*.{Verb.CANCEL}")
FINISHER_DEADLINES = Feed(FINISHES, "finisher-deadlines", f"{ROOT}.deadline.*")
FINISHER_CALLBACKS = Feed(FINISHES, "finisher-callbacks", f"{ROOT}.callback.*.*")
FINISHER_ANSWERS = Feed(EVENTS, "finisher-answers", f"{ROOT}.event.*.*.call.{Purpose.ANSWER}.*.settled", from_log=True)


def feeds() -> tuple[Feed, ...]:
    """Every durable consumer."""
    calls = (feed for lane in Lane for feed in EXECUTOR[lane])
    return (
        *CATEGORIZER, *PLANNER, *PLANNER_BEGIN, *PLANNER_CONTROLS, PLANNER_DUE, PLANNER_SCHEDULES,
        PLANNER_APPROVALS, PLANNER_SETTLED,
        *calls, EXECUTOR_RECONCILE,
        *FINISHER, FINISHER_CANCELS, FINISHER_DEADLINES, FINISHER_CALLBACKS, FINISHER_ANSWERS,
    )  # fmt: skip


def streams(limits: Limits) -> tuple[StreamConfig, ...]:
    """Every stream, buckets of keys left out."""
    queue: dict[str, Any] = {
        "retention": RetentionPolicy.WORK_QUEUE,
        "storage": StorageType.FILE,
        "num_replicas": limits.replicas,
        "allow_direct": True,
    }
    bounded: dict[str, Any] = {**queue, "discard": DiscardPolicy.NEW, "max_msgs": limits.max_queue_depth}
    # The server refuses `discard: new` together with schedules (10052). What comes here was admitted before: at most
    # some commands for each accepted run, so the bound of REQUESTS and of the running workflows bounds these too.
    scheduled: dict[str, Any] = {**queue, "allow_msg_schedules": True, "allow_msg_ttl": True}
    return (
        StreamConfig(
            name=REQUESTS,
            description="requests that nobody has accepted yet: full is an answer",
            subjects=[f"{ROOT}.request.*.*"],
            max_msgs_per_subject=limits.max_queue_depth_per_tenant,
            discard_new_per_subject=True,
            duplicate_window=120,
            **bounded,
        ),
        StreamConfig(
            name=WORKFLOWS,
            description="workflows to plan and run",
            subjects=[f"{ROOT}.workflow.*.*.*"],
            **bounded,
        ),
        StreamConfig(
            name=CALLS,
            description="calls to models, calls that wait for their next attempt, questions about attempts",
            subjects=[f"{ROOT}.call.>", f"{ROOT}.wait.>", f"{ROOT}.inquiry.>", f"{ROOT}.reconcile.>"],
            **scheduled,
        ),
        StreamConfig(
            name=FINISHES,
            description="runs to begin, to control and to end, deadlines of what has not, answers to call back with",
            subjects=[
                f"{ROOT}.finish.*.*",
                f"{ROOT}.deadline.*",
                f"{ROOT}.timer.*",
                f"{ROOT}.begin.*.*",
                f"{ROOT}.control.*.*.*",
                f"{ROOT}.due.>",
                f"{ROOT}.tasktimer.*.*",
                f"{ROOT}.schedule.*.*",
                f"{ROOT}.callback.*.*",
                f"{ROOT}.callbackwait.*.*",
            ],
            **scheduled,
        ),
        StreamConfig(
            name=EVENTS,
            description="the log: what has happened to every run, each fact written once",
            subjects=[f"{ROOT}.event.>", f"{ROOT}.canary.*"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=limits.retention_days * DAY_S,
            num_replicas=limits.replicas,
            allow_direct=True,
            allow_msg_ttl=True,
            republish=RePublish(src=f"{ROOT}.event.>", dest=f"{ROOT}.live.>"),
        ),
        StreamConfig(
            name=RATES,
            description="requests begun lately, by key and tenant: counters (ADR-49) with their steps; the gateways'",
            # By account; the second is what gateways of an older version count while they are replaced.
            subjects=[f"{ROOT}.rate.*.*", f"{ROOT}.rate.*.*.*"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=RATE_LIVES_S,
            max_msgs=MOST_STEPS,
            max_msgs_per_subject=-1,
            allow_msg_counter=True,
            num_replicas=limits.replicas,
            allow_direct=True,
        ),
        StreamConfig(
            name=DEAD,
            description="messages that could not be dealt with, with the reason",
            subjects=[f"{ROOT}.dead.*"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=limits.retention_days * DAY_S,
            max_msgs=100_000,
            max_bytes=1 << 30,
            num_replicas=limits.replicas,
            allow_direct=True,
        ),
        *(
            StreamConfig(
                name=stream_of(name, window),
                description=f"what {name} was asked in the last {window.name}: {window.most} requests at the most",
                # By tenant and priority; the first is what executors of an older version write while they are replaced.
                subjects=[f"{ROOT}.grant.{name}.{window.name}", f"{ROOT}.grant.{name}.{window.name}.*.*"],
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                max_msgs=window.most,
                max_age=window.lives_s,
                duplicate_window=min(window.lives_s, 120.0),
                num_replicas=limits.replicas,
                allow_direct=True,
            )
            for name, windows in limits.grants.items()
            for window in windows
        ),
    )


def buckets(limits: Limits) -> tuple[StreamConfig, ...]:
    """Every bucket, as the stream that it is, in the layout that NATS clients expect (ADR-8, ADR-20)."""

    def keys(name: str, what: str, age_s: float, most: int = -1, history: int = 1) -> StreamConfig:
        return StreamConfig(
            name=f"KV_{name}",
            description=what,
            subjects=[f"$KV.{name}.>"],
            max_msgs_per_subject=history,
            max_msgs=most,
            max_age=age_s,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=True,
        )

    def objects(name: str, what: str, age_s: float) -> StreamConfig:
        return StreamConfig(
            name=f"OBJ_{name}",
            description=what,
            subjects=[f"$O.{name}.C.>", f"$O.{name}.M.>"],
            max_age=age_s,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            num_replicas=limits.replicas,
            allow_rollup_hdrs=True,
            allow_direct=True,
        )

    return (
        keys(SESSIONS, "conversations, `<tenant>.<session>`; written by the finisher", limits.session_days * DAY_S),
        # A record is a running workflow's place: a new one is refused at the bound, one that is there can change.
        keys(
            RUNS,
            "workflows that run, `<tenant>.<run>`; the planner's, removed by the finisher",
            limits.retention_days * DAY_S,
            limits.max_workflows,
        ),
        keys(
            REGISTRY,
            "templates, schedules, models, providers over the configuration file's, by version; the gateway's",
            0,
            100_000,
            history=REGISTRY_VERSIONS,
        ),
        keys(BREAKERS, "models that failed lately, by a digest of provider and model; the executor's", DAY_S, 10_000),
        keys(CACHE, "answers that stand for the very same call; the executor's", max(1.0, limits.cache_s), 100_000),
        replace(
            keys(KEYS, "API keys without their secrets, and tenants' limits; the gateway's", 0, MOST_KEYS),
            # What is heard live was stored, so that whoever reads on hearing it reads no older word.
            republish=RePublish(src=f"$KV.{KEYS}.>", dest=f"{ROOT}.access.>", headers_only=True),
        ),
        keys(
            BUDGETS,
            "what keys and tenants have used and hold (`money`), and their runs (`runs`); executors', gateways'",
            BUDGET_DAYS * DAY_S,
            4 * MOST_KEYS,
        ),
        keys(LIMITS, "tokens of the last minute, by limit; the executor's", DAY_S, 1_000),
        objects(PAYLOADS, "bodies over 256 KB by their digest; written by everyone", limits.retention_days * DAY_S),
        objects(
            ARTIFACTS, "what models made, `<tenant>/<artifact>`; written by the executor", limits.artifact_days * DAY_S
        ),
    )
