"""Hypothesis strategies for everything that travels: each message of the contracts, at random, with odd text in it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from pydantic import JsonValue

from shared.contracts import access, cache, callbacks, commands, events, health, hints, registry
from shared.contracts.conversation import Conversation, Parameters
from shared.contracts.ids import Category, Lane, Priority, Purpose, Verb
from shared.contracts.message import ChatMessage, Fault, Message, Run, ToolCall, Usage
from shared.contracts.workflow import Approval, ForEach, Queue, Task, TaskConfig, Workflow

TOKENS = st.text("abcXYZ019_-", min_size=1, max_size=64)
TEXTS = st.text(max_size=30)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
COUNTS = st.integers(0, 10**9)
ORDINALS = st.integers(1, 1000)
AMOUNTS = st.floats(0, 1e9)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - its timezone is the next argument's
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
"""Any JSON value."""
OBJECTS: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(TEXTS, VALUES, max_size=3)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


RUNS = st.builds(
    Run,
    run_id=TOKENS,
    tenant=TOKENS,
    priority=st.sampled_from(Priority),
    session_id=maybe(TOKENS),
    born_at=TIMES,
    deadline_at=TIMES,
    key=maybe(TOKENS),
    places=maybe(some(TEXTS)),
)
USAGES = st.builds(Usage, prompt_tokens=COUNTS, completion_tokens=COUNTS, cached_tokens=COUNTS, reasoning_tokens=COUNTS)
FAULTS = st.builds(
    Fault,
    type=st.sampled_from(["transient", "persistent", "resource", "logical", "fatal"]),
    code=TEXTS,
    message=TEXTS,
    status=maybe(st.integers(100, 599)),
)
TOOL_CALLS = maybe(some(st.builds(ToolCall, id=TEXTS, name=TEXTS, arguments=TEXTS)))
CHAT_MESSAGES = st.builds(
    ChatMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=TEXTS | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=2),
    name=maybe(TEXTS),
    tool_calls=TOOL_CALLS,
    tool_call_id=maybe(TEXTS),
)
PARAMETERS = st.builds(
    Parameters,
    temperature=maybe(st.floats(0, 2)),
    max_tokens=maybe(ORDINALS),
    top_p=maybe(st.floats(0, 1)),
    stop=maybe(some(TEXTS)),
    seed=maybe(COUNTS),
    presence_penalty=maybe(st.floats(-2, 2)),
    frequency_penalty=maybe(st.floats(-2, 2)),
    response_format=maybe(OBJECTS),
    tools=maybe(some(OBJECTS)),
    tool_choice=maybe(TEXTS | OBJECTS),
    parallel_tool_calls=maybe(st.booleans()),
    extra=maybe(OBJECTS),
)
CONVERSATIONS = st.builds(
    Conversation,
    api=st.sampled_from(["chat", "responses"]),
    model=TEXTS,
    role=maybe(TEXTS),
    messages=some(CHAT_MESSAGES),
    instructions=maybe(TEXTS),
    parameters=PARAMETERS,
    embed=maybe(some(TEXTS)),
    store=st.booleans(),
    echo=maybe(OBJECTS),
)
SPENTS = st.builds(
    commands.Spent, calls=COUNTS, cost_usd=AMOUNTS, usage=USAGES, simulated=st.booleans(), cost_known=st.booleans()
)
CONFIGS = st.builds(
    TaskConfig,
    temperature=maybe(st.floats(0, 2)),
    max_tokens=maybe(ORDINALS),
    top_p=maybe(st.floats(0.01, 1)),
    addons=some(TEXTS),
    seed=COUNTS,  # a setting that this build does not know travels too
)
SECONDS = st.floats(0.001, 86_400)
TASKS = st.builds(
    Task,
    model=maybe(TEXTS),
    prompt=TEXTS,
    output_variable=maybe(NAMES),
    config=CONFIGS,
    input_image=maybe(TEXTS),
    needs=some(NAMES),
    when=maybe(TEXTS),
    for_each=maybe(st.builds(ForEach, items=TEXTS, item=NAMES, concurrency=maybe(ORDINALS))),
    on_error=st.sampled_from(["fail", "continue", "substitute"]),
    substitute=VALUES,
    timeout_s=maybe(SECONDS),
    output_schema=maybe(OBJECTS),
    approve=maybe(st.builds(Approval, message=TEXTS, timeout_s=maybe(SECONDS))),
    template=maybe(TEXTS),
    variables=OBJECTS,
    expand=st.booleans(),
)
QUEUES = st.builds(
    Queue, type=st.sampled_from(["linear", "inline", "graph"]), tasks=st.lists(TASKS, min_size=1, max_size=3).map(tuple)
)
WORKFLOWS = st.builds(
    Workflow,
    workflow=st.lists(QUEUES, min_size=1, max_size=2).map(tuple),
    variables=st.dictionaries(NAMES, VALUES, max_size=3),
)
CHATS = st.builds(
    commands.ChatRequest,
    message=TEXTS,
    images=some(TEXTS),
    context_tokens=COUNTS,
    new_session=st.booleans(),
    conversation=maybe(CONVERSATIONS),
)
REQUESTS = CHATS | st.builds(
    commands.WorkflowRequest,
    workflow=WORKFLOWS,
    template=maybe(TEXTS),
    template_version=maybe(ORDINALS),
    schedule=maybe(TEXTS),
    conversation=maybe(CONVERSATIONS),
)
CALLBACKS = st.builds(callbacks.Callback, url=st.from_regex(r"https://[a-z]{1,9}/[a-z?=&]{0,9}", fullmatch=True))
TRIED = st.builds(
    callbacks.CallbackAttempt, at=TIMES, took_s=AMOUNTS, status=maybe(st.integers(100, 599)), problem=maybe(TEXTS)
)
FAILED = st.builds(
    commands.FailedAttempt,
    attempt=ORDINALS,
    role=TEXTS,
    fault=FAULTS,
    backpressure=st.booleans(),
    usage=USAGES,
    cost_usd=AMOUNTS,
    cost_known=st.booleans(),
)
JOBS = st.builds(
    commands.MediaJob,
    attempt=ORDINALS,
    role=TEXTS,
    provider=TEXTS,
    model=TEXTS,
    operation=TOKENS,
    reserved_usd=AMOUNTS,
    submitted_at=TIMES,
    polls=COUNTS,
)
UNKNOWN = st.builds(
    commands.UnknownAttempt,
    attempt=ORDINALS,
    reserved_usd=AMOUNTS,
    role=TEXTS,
    provider=TEXTS,
    model=TEXTS,
    code=TEXTS,
    started_at=maybe(TIMES),
    generation_id=maybe(TEXTS),
)
TURNS = st.builds(
    events.Turn,
    run_id=TOKENS,
    user=CHAT_MESSAGES,
    assistant=maybe(CHAT_MESSAGES),
    asked_at=TIMES,
    answered_at=TIMES,
)
CATEGORIES = maybe(st.sampled_from(Category))
SETTLED = st.builds(
    events.CallSettled,
    run=RUNS,
    call=TOKENS,
    purpose=st.sampled_from(Purpose),
    outcome=st.sampled_from(["answered", "failed"]),
    text=maybe(TEXTS),
    tool_calls=TOOL_CALLS,
    embeddings=maybe(some(TEXTS)),
    fault=maybe(FAULTS),
    role=TEXTS,
    asked_role=TEXTS,
    provider=maybe(TEXTS),
    model=maybe(TEXTS),
    finish_reason=maybe(TEXTS),
    usage=USAGES,
    cost_usd=AMOUNTS,
    cost_known=st.booleans(),
    simulated=st.booleans(),
    attempts=COUNTS,
    failed=some(FAILED),
    unknown=some(UNKNOWN),
    took_s=AMOUNTS,
    category=CATEGORIES,
    note=maybe(TEXTS),
    spent=SPENTS,
)

ALLOWANCES = st.builds(
    access.Allowance,
    requests_per_minute=maybe(COUNTS),
    concurrent_runs=maybe(COUNTS),
    tokens_per_day=maybe(COUNTS),
    usd_per_day=maybe(AMOUNTS),
    usd_per_month=maybe(AMOUNTS),
    models=maybe(some(TEXTS)),
    priority=maybe(st.sampled_from(Priority)),
)
KEY_IDS = st.text("abcxyz234567", min_size=16, max_size=16)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)

MESSAGES: Mapping[type[Message], st.SearchStrategy[Any]] = {
    access.ApiKey: st.builds(
        access.ApiKey,
        id=KEY_IDS,
        name=TEXTS,
        tenant=TOKENS,
        scopes=some(st.sampled_from(access.Scope)),
        allowance=ALLOWANCES,
        digest=DIGESTS,
        last4=TEXTS,
        earlier=maybe(st.builds(access.EarlierSecret, digest=DIGESTS, last4=TEXTS, until=TIMES)),
        created_at=TIMES,
        by=TEXTS,
        expires_at=maybe(TIMES),
        rotated_at=maybe(TIMES),
        revoked_at=maybe(TIMES),
    ),
    access.Tenant: st.builds(access.Tenant, name=TOKENS, allowance=ALLOWANCES, note=TEXTS, written_at=TIMES, by=TEXTS),
    access.Account: st.builds(
        access.Account,
        day=TEXTS,
        month=TEXTS,
        day_nano_usd=COUNTS,
        day_tokens=COUNTS,
        month_nano_usd=COUNTS,
        held=st.dictionaries(TEXTS, st.builds(access.Hold, nano_usd=COUNTS, tokens=COUNTS, until=TIMES), max_size=3),
    ),
    access.Places: st.builds(access.Places, runs=st.dictionaries(TOKENS, TIMES, max_size=3)),
    hints.TextDelta: st.builds(
        hints.TextDelta, call=TOKENS, attempt=ORDINALS, offset=COUNTS, text=TEXTS, restart=st.booleans()
    ),
    hints.AskText: st.builds(hints.AskText, attempt=COUNTS, offset=COUNTS),
    hints.TextSoFar: st.builds(hints.TextSoFar, call=TOKENS, attempt=ORDINALS, offset=COUNTS, text=TEXTS, end=COUNTS),
    health.BreakerState: st.builds(
        health.BreakerState,
        provider=TEXTS,
        model=TEXTS,
        state=st.sampled_from(["closed", "open", "half_open"]),
        failures=COUNTS,
        until=maybe(TIMES),
        probes=COUNTS,
        passed=COUNTS,
        reason=TEXTS,
        opened=COUNTS,
    ),
    health.CallsAtOnce: st.builds(health.CallsAtOnce, held=st.dictionaries(TOKENS, TIMES, max_size=3)),
    health.TokenWindow: st.builds(
        health.TokenWindow,
        seconds=st.dictionaries(TOKENS, COUNTS, max_size=3),
        owners=st.dictionaries(TOKENS, st.dictionaries(TOKENS, COUNTS, max_size=3), max_size=3),
        writes=some(TOKENS),
    ),
    health.LimitWait: st.builds(health.LimitWait, call=TEXTS, window=TEXTS, wants=COUNTS, lasts_s=AMOUNTS),
    cache.CachedAnswer: st.builds(
        cache.CachedAnswer,
        text=TEXTS,
        role=TEXTS,
        provider=TEXTS,
        model=TEXTS,
        finish_reason=maybe(TEXTS),
        usage=USAGES,
        cost_usd=AMOUNTS,
        cost_known=st.booleans(),
        simulated=st.booleans(),
        took_s=AMOUNTS,
        answered_at=TIMES,
    ),
    registry.NamesFreed: st.builds(registry.NamesFreed, version=ORDINALS),
    registry.ModelEntry: st.builds(
        registry.ModelEntry,
        role=TOKENS,
        version=ORDINALS,
        document=maybe(OBJECTS),
        fallbacks=maybe(some(TEXTS)),
        system_prompt=maybe(TEXTS),
        disabled=maybe(TEXTS),
        written_at=TIMES,
        by=TEXTS,
    ),
    registry.ProviderEntry: st.builds(
        registry.ProviderEntry,
        name=TOKENS,
        version=ORDINALS,
        document=maybe(OBJECTS),
        disabled=maybe(TEXTS),
        written_at=TIMES,
        by=TEXTS,
    ),
    callbacks.DeliverCallback: st.builds(
        callbacks.DeliverCallback,
        run=RUNS,
        callback=CALLBACKS,
        number=ORDINALS,
        begun_at=TIMES,
        tried=some(TRIED),
        deferred=COUNTS,
        hurried=st.booleans(),
        parent=maybe(TOKENS),
        schedule=maybe(TOKENS),
    ),
    callbacks.CallbackSettled: st.builds(
        callbacks.CallbackSettled,
        run=RUNS,
        number=ORDINALS,
        url=TEXTS,
        outcome=st.sampled_from(["delivered", "given_up"]),
        reason=maybe(TEXTS),
        message_id=TEXTS,
        attempts=some(TRIED),
        settled_at=TIMES,
    ),
    registry.TemplateVersion: st.builds(
        registry.TemplateVersion,
        tenant=TOKENS,
        name=TOKENS,
        version=ORDINALS,
        document=maybe(OBJECTS),
        written_at=TIMES,
        by=TEXTS,
    ),
    registry.Schedule: st.builds(
        registry.Schedule,
        tenant=TOKENS,
        name=TOKENS,
        version=ORDINALS,
        template=TOKENS,
        variables=OBJECTS,
        cron=maybe(st.just("0 8 * * 1-5")),
        every=maybe(st.just("90s")),
        timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
        priority=st.sampled_from(Priority),
        overlap=st.sampled_from(["skip", "allow"]),
        callback=maybe(CALLBACKS),
        paused=st.booleans(),
        deleted=st.booleans(),
        written_at=TIMES,
        by=TEXTS,
    ),
    registry.ScheduleDue: st.builds(registry.ScheduleDue, tenant=TOKENS, name=TOKENS, version=ORDINALS),
    registry.ScheduleState: st.builds(
        registry.ScheduleState,
        last_run=maybe(TOKENS),
        last_at=maybe(TIMES),
        next_at=maybe(TIMES),
        started=COUNTS,
        skipped=COUNTS,
        problem=maybe(TEXTS),
        seq=COUNTS,
    ),
    commands.SubmitRequest: st.builds(
        commands.SubmitRequest,
        run=RUNS,
        request=CHATS,
        source=st.sampled_from(["gateway", "bus"]),
        callback=maybe(CALLBACKS),
    ),
    commands.PlanRun: st.builds(
        commands.PlanRun,
        run=RUNS,
        request=REQUESTS,
        history=some(CHAT_MESSAGES),
        spent=SPENTS,
        source=st.sampled_from(["gateway", "categorizer", "bus"]),
        callback=maybe(CALLBACKS),
    ),
    commands.ExecuteCall: st.builds(
        commands.ExecuteCall,
        run=RUNS,
        call=TOKENS,
        purpose=st.sampled_from(Purpose),
        lane=st.sampled_from(Lane),
        role=TEXTS,
        messages=some(CHAT_MESSAGES),
        temperature=maybe(st.floats(0, 2)),
        max_tokens=maybe(ORDINALS),
        top_p=maybe(st.floats(0, 1)),
        parameters=maybe(PARAMETERS),
        embed=maybe(some(TEXTS)),
        response_schema=maybe(OBJECTS),
        response_schema_name=maybe(TEXTS),
        stream=st.booleans(),
        timeout_s=maybe(AMOUNTS),
        category=CATEGORIES,
        note=maybe(TEXTS),
        spent=SPENTS,
        failed=some(FAILED),
        unknown=some(UNKNOWN),
        job=maybe(JOBS),
        settings=OBJECTS,
    ),
    commands.FinishRun: st.builds(
        commands.FinishRun, run=RUNS, outcome=st.sampled_from(["denied", "failed", "workflow"]), fault=maybe(FAULTS)
    ),
    commands.DeadlinePassed: st.builds(commands.DeadlinePassed, run=RUNS),
    commands.CancelRun: st.builds(commands.CancelRun, run_id=TOKENS, reason=TEXTS),
    events.RunAccepted: st.builds(
        events.RunAccepted,
        run=RUNS,
        request=REQUESTS,
        by=st.sampled_from(["categorizer", "planner"]),
        callback=maybe(CALLBACKS),
    ),
    events.RunCategorized: st.builds(
        events.RunCategorized,
        run=RUNS,
        category=CATEGORIES,
        reason=TEXTS,
        role=maybe(TEXTS),
        context_tokens=COUNTS,
        spent=SPENTS,
        fault=maybe(FAULTS),
    ),
    events.RunPlanned: st.builds(
        events.RunPlanned,
        run=RUNS,
        workflow=maybe(WORKFLOWS),
        source=st.sampled_from(["model", "template", "request", "direct"]),
        repairs=COUNTS,
        note=maybe(TEXTS),
        spent=SPENTS,
    ),
    events.AttemptStarted: st.builds(
        events.AttemptStarted,
        run=RUNS,
        call=TOKENS,
        attempt=ORDINALS,
        role=TEXTS,
        provider=TEXTS,
        model=TEXTS,
        reserved_usd=AMOUNTS,
        claimed_by=TOKENS,
        started_at=TIMES,
    ),
    events.JobSubmitted: st.builds(events.JobSubmitted, run=RUNS, call=TOKENS, job=JOBS),
    events.Progress: st.builds(
        events.Progress,
        states=st.dictionaries(TOKENS, st.sampled_from("saredpfkcu"), max_size=5),
        fans=st.dictionaries(TOKENS, st.text("wsrdpfcu", max_size=20), max_size=3),
        held=st.booleans(),
        holds=COUNTS,
        cost_usd=AMOUNTS,
    ),
    events.TaskExpanded: st.builds(events.TaskExpanded, run=RUNS, task=TOKENS, workflow=WORKFLOWS),
    events.ApprovalAsked: st.builds(
        events.ApprovalAsked,
        run=RUNS,
        task=TOKENS,
        output=TEXTS,
        message=TEXTS,
        until=TIMES,
        default=st.sampled_from(["approve", "reject"]),
    ),
    events.ApprovalDecided: st.builds(
        events.ApprovalDecided, run=RUNS, task=TOKENS, approved=st.booleans(), by=TEXTS, comment=maybe(TEXTS)
    ),
    events.RunHeld: st.builds(
        events.RunHeld,
        run=RUNS,
        number=ORDINALS,
        held=st.booleans(),
        command=COUNTS,
        by=TEXTS,
        reason=maybe(TEXTS),
    ),
    events.CallWrittenOff: st.builds(
        events.CallWrittenOff,
        run=RUNS,
        call=TOKENS,
        purpose=st.sampled_from(Purpose),
        role=TEXTS,
        model=maybe(TEXTS),
        usage=USAGES,
        cost_usd=AMOUNTS,
        cost_known=st.booleans(),
        attempts=some(ORDINALS),
        unknown=some(UNKNOWN),
        asks=some(ORDINALS),
        settled_at=maybe(TIMES),
    ),
    events.AttemptReconciled: st.builds(
        events.AttemptReconciled,
        run=RUNS,
        call=TOKENS,
        purpose=st.sampled_from(Purpose),
        attempt=ORDINALS,
        role=TEXTS,
        provider=TEXTS,
        model=TEXTS,
        found=st.booleans(),
        by=st.sampled_from(["provider", "executor"]),
        usage=USAGES,
        cost_usd=AMOUNTS,
        settled_at=TIMES,
    ),
    commands.ReconcileAttempt: st.builds(
        commands.ReconcileAttempt,
        run=RUNS,
        call=TOKENS,
        purpose=st.sampled_from(Purpose),
        attempt=UNKNOWN,
        settled_at=TIMES,
        asked=COUNTS,
    ),
    commands.BeginRun: st.builds(commands.BeginRun, run=RUNS),
    commands.TaskDue: st.builds(commands.TaskDue, run=RUNS, task=TOKENS),
    commands.ControlRun: st.builds(
        commands.ControlRun,
        run_id=TOKENS,
        tenant=TOKENS,
        verb=st.sampled_from(Verb),
        by=TEXTS,
        reason=maybe(TEXTS),
        task=maybe(TEXTS),
    ),
    events.CallSettled: SETTLED,
    events.ResponseDeleted: st.builds(events.ResponseDeleted, run=RUNS),
    events.RunEnded: st.builds(
        events.RunEnded,
        run=RUNS,
        outcome=st.sampled_from(["completed", "failed", "denied", "cancelled"]),
        category=CATEGORIES,
        text=maybe(TEXTS),
        acknowledgement=maybe(TEXTS),
        tool_calls=TOOL_CALLS,
        finish_reason=maybe(TEXTS),
        result=maybe(OBJECTS),
        fault=maybe(FAULTS),
        note=maybe(TEXTS),
        role=maybe(TEXTS),
        model=maybe(TEXTS),
        spent=SPENTS,
        ended_at=TIMES,
    ),
    events.Session: st.builds(events.Session, created_at=TIMES, turns=some(TURNS)),
}
