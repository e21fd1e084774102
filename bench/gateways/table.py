"""The one table: medians over the rounds, and how they compare to LiteLLM's."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from bench.gateways.targets import Batch

Rounds = Mapping[tuple[str, int], Sequence[Batch]]
"""The batches, one a round, by target and number in flight."""
FAKE, LITELLM = "fake provider", "litellm"
HEAD = (
    "in flight",
    "gateway",
    "p50 ms",
    "p95 ms",
    "overhead ms",
    "to LiteLLM",
    "calls/s",
    "CPU ms a call",
    "to LiteLLM",
    "RSS MB",
    "to LiteLLM",
    "PSS MB",
    "model calls",
)


def overhead_ms(rounds: Rounds, name: str, at_once: int) -> float:
    """Return the median over the rounds of a p50 minus the fake provider's own of the same round."""
    pairs = zip(rounds[name, at_once], rounds[FAKE, at_once], strict=True)
    return median(one.p50_ms - fake.p50_ms for one, fake in pairs)


def table(rounds: Rounds) -> str:
    """Return the rows as Markdown, by number in flight and in the order of the targets."""
    rows = [HEAD, tuple("---" for _ in HEAD)]
    rows += [_row(rounds, name, at_once) for name, at_once in sorted(rounds, key=lambda key: key[1])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(rounds: Rounds, name: str, at_once: int) -> tuple[str, ...]:
    def of(who: str, value: Callable[[Batch], float]) -> float:
        return median(value(batch) for batch in rounds[who, at_once])

    def ratio(mine: float, theirs: Callable[[], float]) -> str:
        return f"{mine / theirs():.2f}" if name != FAKE and (LITELLM, at_once) in rounds else "-"

    overhead = overhead_ms(rounds, name, at_once)
    cpu_ms, resident = of(name, lambda batch: batch.cpu_ms), of(name, lambda batch: batch.memory.resident)
    return (
        str(at_once),
        name,
        f"{of(name, lambda batch: batch.p50_ms):.2f}",
        f"{of(name, lambda batch: batch.p95_ms):.2f}",
        f"{overhead:.2f}" if name != FAKE else "-",
        ratio(overhead, lambda: overhead_ms(rounds, LITELLM, at_once)),
        f"{of(name, lambda batch: batch.calls_s):.0f}",
        f"{cpu_ms:.2f}",
        ratio(cpu_ms, lambda: of(LITELLM, lambda batch: batch.cpu_ms)),
        f"{resident:.0f}",
        ratio(resident, lambda: of(LITELLM, lambda batch: batch.memory.resident)),
        f"{of(name, lambda batch: batch.memory.proportional):.0f}",
        f"{of(name, lambda batch: batch.model_calls):.2f}",
    )
