"""Answers that are kept, and given again to whoever asks for the very same. Losing one costs money and nothing else."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from services.executor import caching
from services.executor.roster import Roster
from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.config.providers import Route
from shared.contracts.cache import CachedAnswer
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import CallSettled
from shared.observe import metrics


@dataclass(frozen=True, slots=True)
class Recall:
    """One a process; what it keeps lies in the bucket `cache`."""

    bus: Bus
    roster: Roster
    now: Callable[[], datetime]
    caches: bool = True
    """Whether answers are kept at all."""

    async def known(self, command: ExecuteCall, role: str) -> CallSettled | None:
        """Return what a call comes to that nobody has asked yet; None: it has to be asked."""
        key = self._key(command, self.roster.choice(role, command))
        if key is None:
            return None
        found, _ = await self.bus.cache.get(key, CachedAnswer)
        if found is not None and not caching.stands(found, command.run.deadline_at):
            found = None
        metrics.CACHED.labels("miss" if found is None else "hit").inc()
        return None if found is None else caching.answered(command, found)

    async def keep(self, command: ExecuteCall, route: Route, fact: CallSettled) -> None:
        """Keep an answer for whoever asks for the very same; what does not fit is not kept."""
        key, answer = self._key(command, route), caching.kept(fact, self.now())
        if key is not None and answer is not None:
            with suppress(BusError):
                await self.bus.cache.update(key, CachedAnswer, lambda _: answer)

    def _key(self, command: ExecuteCall, route: Route) -> str | None:
        """Return what a call's answer is kept by; None: it is not. Which of a provider's servers it was is the same."""
        if not self.caches or command.cache is False:
            return None
        if not caching.may_cache(command, {"temperature": route.parameters.temperature}):
            return None
        whole = self.roster.of(route.role, route.provider, route.model) or route
        parameters = route.parameters.model_dump(mode="json", exclude_none=True)
        return caching.key_of(command, (route.provider, whole.base_url, route.model), parameters)
