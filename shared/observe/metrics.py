"""Every metric of Segue, declared once: its unit, and what an operator does when it moves.

Ids never become labels. Durations are seconds with buckets on both sides of the 5 s objective.
"""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 15, 30, 60, 120, 300)

BUILD = Gauge("segue_build_info", "Always 1; the labels say what runs.", ["service", "version"])

# Gateway. Errors 5xx rising: look at `segue_runs_ended_total` for the outcome; 429/503: scale what the queue waits for.
REQUESTS = Counter(
    "segue_http_requests_total", "Requests answered, by what was asked and the status.", ["kind", "status"]
)
REQUEST_SECONDS = Histogram(
    "segue_http_request_seconds", "From a request's arrival to its answer.", ["kind"], buckets=SECONDS
)
REQUESTS_IN_FLIGHT = Gauge("segue_http_requests_in_flight", "Requests that wait for their answer.")

# Runs. `failed` rising: the attempts' outcomes below say which provider.
RUNS_ACCEPTED = Counter("segue_runs_accepted_total", "Runs whose first fact was written.", ["source"])
RUNS_CATEGORIZED = Counter("segue_runs_categorized_total", "Runs by category and how it was found.", ["category", "by"])
RUNS_PLANNED = Counter(
    "segue_runs_planned_total", "Plans by source; `direct` means that no plan was valid.", ["source"]
)
RUNS_WAITED = Counter(
    "segue_runs_waited_total",
    "Workflows that found no place and wait for one. Rising: more of them than orchestration.maxConcurrentWorkflows.",
)
PLAN_REPAIRS = Counter("segue_plan_repairs_total", "Plans handed back to the model with their errors.")
RUNS_ENDED = Counter("segue_runs_ended_total", "Runs by how they ended.", ["outcome", "category"])
RUN_SECONDS = Histogram("segue_run_seconds", "From a run's birth to its end.", ["category"], buckets=SECONDS)

# Models. `unavailable` or `rate_limited` rising: check the provider, its key and its limits.
CALLS = Counter("segue_calls_total", "Settled calls.", ["role", "outcome"])
VARIANT_CALLS = Counter(
    "segue_variant_calls_total",
    "Settled calls of roles with several models, by which one.",
    ["role", "variant", "outcome"],
)
ATTEMPTS = Counter("segue_attempts_total", "Attempts by outcome code.", ["provider", "model", "outcome"])
ATTEMPT_SECONDS = Histogram(
    "segue_attempt_seconds", "One attempt, as the executor saw it.", ["provider", "model"], buckets=SECONDS
)
FIRST_TOKEN_SECONDS = Histogram(
    "segue_attempt_first_token_seconds", "Until the first streamed token.", ["provider", "model"], buckets=SECONDS
)
TOKENS = Counter("segue_tokens_total", "Tokens as the provider counted them.", ["model", "direction"])
COST_USD = Counter("segue_cost_usd_total", "US dollars, as the provider said or by the price table.", ["model", "role"])
UNKNOWN_COST = Counter(
    "segue_unknown_cost_calls_total", "Calls whose price nobody knows: add the model to the price table."
)

UNKNOWN_ATTEMPTS = Counter(
    "segue_attempts_left_unknown_total",
    "Attempts settled with unknown cost, by how they ended. Rising: executors die, or streams are cut.",
    ["provider", "outcome"],
)
RECONCILED = Counter(
    "segue_attempts_reconciled_total",
    "Attempts of unknown cost by what was found: provider, executor, never_arrived; given_up: they stay unknown.",
    ["outcome"],
)
UNKNOWN_NOW = Gauge(
    "segue_attempts_unknown",
    "Attempts whose cost nobody knows yet, by the history. Not falling: see `segue costs --unknown`.",
)

CACHED = Counter("segue_cache_lookups_total", "Calls that the cache could answer, by outcome: hit, miss.", ["outcome"])
BREAKER_OPEN = Gauge(
    "segue_breaker_open", "1: the model is left alone; 0.5: a few calls try it; 0: it is asked.", ["provider", "model"]
)
MODEL_GONE = Gauge(
    "segue_model_gone",
    "1: the provider says that there is no such model (404): point the role at another id; its fallbacks answer.",
    ["provider", "model"],
)

# The door. 401s rising: a key was rotated, or somebody tries keys. `limited` rising: a key or tenant is at its limit.
REFUSED_AT_DOOR = Counter("segue_requests_refused_total", "Requests refused for who they are from.", ["status"])
LIMITED = Counter("segue_requests_limited_total", "Runs not begun because a limit is used up.", ["code"])
BUDGET_REFUSALS = Counter("segue_calls_over_budget_total", "Calls not made because a budget is used up.")

# Work. `pending` growing with places taken: scale the service; redeliveries: something dies or stalls.
TAKEN = Counter("segue_messages_taken_total", "Messages taken from a consumer.", ["service", "feed"])
SETTLED = Counter(
    "segue_messages_settled_total", "Messages by verdict: done, retry, buried.", ["service", "feed", "verdict"]
)
HANDLER_SECONDS = Histogram(
    "segue_handler_seconds", "From taking a message to its verdict.", ["service", "feed"], buckets=SECONDS
)
REDELIVERED = Counter(
    "segue_messages_redelivered_total", "Messages taken that were delivered before.", ["service", "feed"]
)
STALLS = Counter("segue_pull_stalls_total", "Pulls made again after silence or a reconnect.", ["service", "feed"])
RUNNING = Gauge("segue_handlers_running", "Messages being worked on.", ["service", "pool"])
PLACES = Gauge("segue_handler_places", "Messages that can be worked on at once.", ["service", "pool"])
PENDING = Gauge("segue_consumer_pending", "Messages that wait in a consumer.", ["service", "consumer"])
ACK_PENDING = Gauge("segue_consumer_ack_pending", "Messages taken and not yet settled.", ["service", "consumer"])
DEAD_LETTERS = Counter("segue_dead_letters_total", "Messages buried, by stable reason.", ["service", "reason"])

# The bus and the process.
CONNECTED = Gauge("segue_bus_connected", "1 while connected to NATS.", ["service"])
RECONNECTS = Counter("segue_bus_reconnects_total", "Connections made again.", ["service"])
DURABLE_WRITES = Counter("segue_bus_durable_writes_total", "Durable writes asked for.", ["service"])
LOOP_LAG_SECONDS = Gauge("segue_event_loop_lag_seconds", "How late the event loop ran its last timer.", ["service"])

# Schedules. `failed`: a template is gone, or its parameters do not fit any more; see `segue schedules ls`.
SCHEDULES_FIRED = Counter("segue_schedules_fired_total", "Schedules whose time came, by outcome.", ["outcome"])

# Callbacks. `given_up` or `failed` rising: somebody's receiver is down or refuses; `segue runs show` says why.
CALLBACKS = Counter(
    "segue_callbacks_total", "Answers POSTed to callers: delivered, failed, deferred, given_up.", ["outcome"]
)

# The history: a projection of the log in SQL. Failures: lists and sums are behind, runs are not.
HISTORY_FACTS = Counter("segue_history_facts_total", "Facts of the log taken into the history.")
HISTORY_FAILURES = Counter("segue_history_failures_total", "Times that the history could not be brought up to date.")
