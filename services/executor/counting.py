"""What a settled call adds to the metrics and the log, once."""

import logging

from services.executor.reconciling import count_open
from shared.contracts.events import CallSettled
from shared.observe import metrics

log = logging.getLogger("segue.executor")


def count_call(fact: CallSettled) -> None:
    """Count a call that this process has settled."""
    metrics.CALLS.labels(fact.role, fact.outcome).inc()
    if fact.variant is not None:
        metrics.VARIANT_CALLS.labels(fact.role, fact.variant, fact.outcome).inc()
    model = fact.model or "none"
    if fact.usage.prompt_tokens:
        metrics.TOKENS.labels(model, "prompt").inc(fact.usage.prompt_tokens)
    if fact.usage.completion_tokens:
        metrics.TOKENS.labels(model, "completion").inc(fact.usage.completion_tokens)
    if fact.cost_usd:
        metrics.COST_USD.labels(model, fact.role).inc(fact.cost_usd)
    if not fact.cost_known:
        metrics.UNKNOWN_COST.inc()
        count_open(fact)
    if fact.outcome == "failed":
        assert fact.fault is not None
        log.warning(
            "call.failed", extra={"code": fact.fault.code, "attempts": fact.attempts, "reason": fact.fault.message}
        )
    else:
        log.info(
            "call.answered",
            extra={"role": fact.role, "model": fact.model, "attempts": fact.attempts, "took_s": round(fact.took_s, 4)},
        )
