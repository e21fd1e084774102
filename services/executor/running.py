"""What this process is working on right now: so that it can be cancelled, and asked about."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from shared.contracts.message import Run


class Cancelled(Exception):
    """The run was cancelled while something was done for it."""


@dataclass(slots=True, eq=False)
class Working:
    """A call in this process's hands."""

    call: str = ""
    claims: list[str] = field(default_factory=list)
    cancelled: str | None = None
    """The reason, once it is."""
    _scope: asyncio.Timeout | None = None

    def cancel(self, reason: str) -> None:
        """End what `cancellable` surrounds, now or as soon as it is entered. Safe to repeat."""
        self.cancelled = self.cancelled or reason
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def cancellable(self) -> AsyncIterator[None]:
        """Surround what a cancellation may stop in the middle. Raises `Cancelled`."""
        if self.cancelled is not None:
            raise Cancelled(self.cancelled)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scope = scope
                try:
                    yield
                finally:
                    self._scope = None
        except TimeoutError:
            if self.cancelled is None or not scope.expired():
                raise
            raise Cancelled(self.cancelled) from None


@dataclass(slots=True)
class Running:
    """Everything in this process's hands, by run and by claim."""

    executor: str = field(default_factory=lambda: secrets.token_hex(6))
    """Names this process in its claims."""
    _by_run: dict[tuple[str, str], set[Working]] = field(default_factory=lambda: defaultdict(set))
    _claims: set[str] = field(default_factory=set)

    @contextmanager
    def enter(self, run: Run, call: str = "") -> Iterator[Working]:
        """Hold a call of `run` while its handler runs."""
        key = (run.tenant, run.run_id)
        working = Working(call)
        self._by_run[key].add(working)
        try:
            yield working
        finally:
            self._claims.difference_update(working.claims)
            there = self._by_run[key]
            there.discard(working)
            if not there:
                del self._by_run[key]

    def claim(self, working: Working) -> str:
        """Return a fresh name for a claim: `<executor>.<random>`. It is worked on from now until its handler ends."""
        claim = f"{self.executor}.{secrets.token_hex(6)}"
        working.claims.append(claim)
        self._claims.add(claim)
        return claim

    def works_on(self, claim: str) -> bool:
        return claim in self._claims

    def cancel(self, tenant: str, run_id: str, reason: str, call: str | None = None) -> int:
        """Stop what is done for a run, or for one of its calls; returns how many calls that were."""
        there = [one for one in self._by_run.get((tenant, run_id), set()) if call in (None, one.call)]
        for working in there:
            working.cancel(reason)
        return len(there)
