"""What each service may say and hear on the bus: as little as its work needs, made from the topology. (ADR 0023)"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.contracts.ids import Lane
from shared.subjects import ROOT
from shared.topology import (
    ARTIFACTS,
    BREAKERS,
    BUDGETS,
    CACHE,
    CALLS,
    CATEGORIZER,
    EVENTS,
    EXECUTOR,
    EXECUTOR_RECONCILE,
    FINISHER,
    FINISHER_ANSWERS,
    FINISHER_CALLBACKS,
    FINISHER_CANCELS,
    FINISHER_DEADLINES,
    FINISHES,
    KEYS,
    LIMITS,
    PAYLOADS,
    PLANNER,
    PLANNER_APPROVALS,
    PLANNER_BEGIN,
    PLANNER_CONTROLS,
    PLANNER_DUE,
    PLANNER_SCHEDULES,
    PLANNER_SETTLED,
    RATES,
    REGISTRY,
    RUNS,
    SESSIONS,
    Feed,
    Limits,
    stream_of,
)

API: Final = "$JS.API"
INBOX: Final = "_INBOX_"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish on and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False
    """Whether it may answer what it was asked, wherever the answer goes."""


FEEDS: Final[Mapping[str, tuple[Feed, ...]]] = {
    "gateway": (),
    "categorizer": CATEGORIZER,
    "planner": (
        *PLANNER, *PLANNER_BEGIN, *PLANNER_CONTROLS, PLANNER_DUE, PLANNER_SCHEDULES, PLANNER_APPROVALS, PLANNER_SETTLED,
    ),
    "executor": (*(feed for lane in Lane for feed in EXECUTOR[lane]), EXECUTOR_RECONCILE),
    "finisher": (*FINISHER, FINISHER_CANCELS, FINISHER_DEADLINES, FINISHER_CALLBACKS, FINISHER_ANSWERS),
}  # fmt: skip
"""What each service takes."""

_FACTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("deleted",),
    "categorizer": ("accepted", "category"),
    "planner": ("accepted", "plan", "expanded.*", "asked.*", "approval.*", "hold.*", "call.*.*.settled"),
    "executor": ("call.>",),
    "finisher": ("ended", "callback.*"),
}
"""What each service writes on the log."""

_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": (
        "request.*.*",
        "workflow.*.*.*",
        "timer.*",
        "control.*.*.*",
        "schedule.*.*",
        "callback.*.*",
        "rate.*.*",
        "rate.*.*.*",
    ),
    "categorizer": ("call.>", "workflow.*.*.*", "finish.*.*", "timer.*", "deadline.*"),
    "planner": (
        "call.>",
        "finish.*.*",
        "begin.*.*",
        "timer.*",
        "deadline.*",
        "tasktimer.*.*",
        "schedule.*.*",
        "workflow.*.*.*",
    ),
    "executor": ("call.>", "wait.>", "inquiry.>", "finish.*.*", "grant.>"),
    "finisher": ("call.>", "finish.*.*", "timer.*", "callback.*.*", "callbackwait.*.*"),
}
"""What each service sends."""

_SAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("sofar.*.*.*",),
    "categorizer": (),
    "planner": ("cancel.*.*",),
    "executor": ("token.*.*.*", "working.*.*", "limitwait.*.*.*"),
    "finisher": ("cancel.*.*",),
}
"""What each service says without its being kept."""

_HEARS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("live.>", "token.*.*.*", "door.*.>", "access.>"),
    "categorizer": ("live.>",),
    "planner": ("live.>",),
    "executor": ("live.>", "cancel.*.*", "working.*.*", "limitwait.*.*.*", "sofar.*.*.*", "access.>"),
    "finisher": ("live.>",),
}

_READS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": (FINISHES, RATES, f"KV_{RUNS}", f"OBJ_{ARTIFACTS}"),
    "categorizer": (FINISHES, f"KV_{SESSIONS}"),
    "planner": (CALLS, FINISHES),
    "executor": (CALLS, f"KV_{KEYS}"),
    "finisher": (CALLS, FINISHES),
}
"""Streams that are read beside the log and the payloads, and not written."""

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": (REGISTRY, SESSIONS, BREAKERS, KEYS, BUDGETS),
    "categorizer": (),
    "planner": (RUNS, REGISTRY),
    "executor": (BREAKERS, LIMITS, CACHE, BUDGETS),
    "finisher": (SESSIONS, RUNS, BUDGETS),
}
"""Buckets whose keys are written."""

_PURGES: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": (FINISHES,),
    "categorizer": (),
    "planner": (CALLS, FINISHES),
    "executor": (),
    "finisher": (FINISHES,),
}
"""Queues from which single subjects are taken back."""

SERVICES: Final = tuple(FEEDS)


def of(service: str, limits: Limits) -> Permissions:
    """Return what a service may say and hear; `limits` name the streams of grants."""
    publish = [f"{ROOT}.canary.{service}", f"{ROOT}.dead.{service}"]
    publish += [f"{ROOT}.event.*.*.{fact}" for fact in _FACTS[service]]
    publish += [f"{ROOT}.{subject}" for subject in (*_COMMANDS[service], *_SAYS[service])]
    for feed in FEEDS[service]:
        publish += _taking(feed)
    publish += _reading([EVENTS, f"OBJ_{PAYLOADS}", f"KV_{REGISTRY}", *_READS[service]])
    publish += _keeping(_KEYS[service])
    publish += [f"{API}.STREAM.PURGE.{stream}" for stream in _PURGES[service]]
    publish += [f"$O.{PAYLOADS}.>"]
    subscribe = [f"{INBOX}{service}.>", f"$KV.{REGISTRY}.>", *(f"{ROOT}.{subject}" for subject in _HEARS[service])]
    if service == "executor":
        publish += [f"$O.{ARTIFACTS}.>", *_reading([f"OBJ_{ARTIFACTS}"])]
        granted = [stream_of(name, window) for name, windows in limits.grants.items() for window in windows]
        publish += [*_reading(granted), *(f"{API}.STREAM.MSG.DELETE.{stream}" for stream in granted)]
        publish += [f"{API}.STREAM.INFO.{stream}" for stream in granted]  # who holds how many
        subscribe += [f"$KV.{BREAKERS}.*"]
    if service == "gateway":
        publish += [f"{API}.STREAM.INFO.*"]
    return Permissions(
        tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe)), responds=service in {"gateway", "executor"}
    )


def _taking(feed: Feed) -> Iterable[str]:
    """Yield what taking from a consumer needs, and making it anew when it was deleted."""
    name = f"{feed.stream}.{feed.durable}"
    yield f"{API}.CONSUMER.INFO.{name}"
    yield f"{API}.CONSUMER.MSG.NEXT.{name}"
    yield f"$JS.ACK.{name}.>"
    yield f"{API}.CONSUMER.DURABLE.CREATE.{name}"
    yield f"{API}.CONSUMER.DELETE.{name}"


def _reading(streams: Iterable[str]) -> Iterable[str]:
    for stream in streams:
        yield f"{API}.DIRECT.GET.{stream}"
        yield f"{API}.DIRECT.GET.{stream}.>"
        yield f"{API}.STREAM.MSG.GET.{stream}"


def _keeping(buckets: Iterable[str]) -> Iterable[str]:
    for bucket in buckets:
        yield f"$KV.{bucket}.>"
        yield from _reading([f"KV_{bucket}"])
        yield f"{API}.STREAM.PURGE.KV_{bucket}"
