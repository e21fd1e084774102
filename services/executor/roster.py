"""Who can be asked now: the roles' routes as they are at the moment, and whom the breakers leave alone."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.executor import settlement, taxonomy
from services.executor.breaker import Go, Wait
from services.executor.breakers import Breakers
from services.executor.settlement import fault
from services.executor.variants import in_order
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall, MediaJob
from shared.contracts.message import Fault

log = logging.getLogger("segue.executor")


@dataclass(slots=True)
class Roster:
    """The routes of every role. A change of the registry puts others in their place."""

    routes: Mapping[str, Route]
    fallbacks: Mapping[str, Sequence[str]]
    breakers: Breakers
    now: Callable[[], datetime]

    def chain(self, role: str, *, alone: bool = False) -> tuple[list[str], Fault | None]:
        """Return the roles that can be asked, in order; or why there is none. `alone`: nobody stands in for it."""
        if role not in self.routes:
            known = ", ".join(sorted(self.routes))
            return [], fault(taxonomy.UNKNOWN_ROLE, f"role {role!r} is not in ai_models; known roles: {known}")
        others = () if alone else self.fallbacks.get(role, ())
        wanted = list(dict.fromkeys([role, *(name for name in others if name in self.routes)]))
        why_not = {name: self._why_not(self.routes[name]) for name in wanted}
        there = [name for name in wanted if why_not[name] is None]
        if there:
            return there, None
        return [], settlement.nobody(role, wanted, [why or "" for why in why_not.values()])

    def _why_not(self, route: Route) -> str | None:
        """Return why nobody plays a role now; None: somebody does."""
        asked = [one for one in (route, *route.variants) if one.weight] or [route]
        reasons = [self._why_not_one(one) for one in asked]
        return reasons[0] if all(reasons) else None

    def _why_not_one(self, route: Route) -> str | None:
        if route.unavailable is None and route.expires_on is not None and self.now().date() > route.expires_on:
            return f"the model {route.model} of role {route.role!r} is served until {route.expires_on} only"
        return route.unavailable

    async def passing(self, chain: Sequence[str], role: str, command: ExecuteCall) -> tuple[Route, bool] | Wait:
        """Return the first route, from this role on, whose model is not left alone, and whether it is only tried.

        With none: the shortest time until one may be.
        """
        waits = []
        for name in chain[chain.index(role) :]:
            there = self.routes.get(name)
            if there is None:
                continue  # it was taken out meanwhile
            for route in _in_order(there, command):
                if self._why_not_one(route) is not None:
                    continue
                found = await self.breakers.gate(route)
                if isinstance(found, Go):
                    if name != role:
                        log.info("attempt.around", extra={"from_role": role, "to_role": name})
                    return route, found.probe
                waits.append(found.seconds)
        return Wait(min(waits, default=0.0))

    def left_alone(self, chain: Sequence[str], role: str, seconds: float) -> Fault:
        """Return the fault of a call whose models are all left alone until it is too late."""
        routes = [self.routes[name] for name in chain[chain.index(role) :] if name in self.routes]
        names = [f"{one.provider} ({one.model})" for route in routes for one in (route, *route.variants)]
        return settlement.left_alone(names or [role], seconds)

    def first(self, chain: Sequence[str]) -> Route:
        """Return the route of a chain's first role."""
        return self.routes[chain[0]]

    def choice(self, role: str, command: ExecuteCall) -> Route:
        """Return which of a role's models a run is asked of, if nothing speaks against it."""
        return _in_order(self.routes[role], command)[0]

    def of(self, role: str, provider: str, model: str) -> Route | None:
        """Return by way of whom an attempt was sent, whoever plays its role by now; None: nobody is asked there."""
        there = self.routes.get(role)
        asked = [
            one
            for route in (*((there,) if there is not None else ()), *self.routes.values())
            for one in (route, *route.variants)
            if one.provider == provider
        ]
        found = next((one for one in asked if one.model == model), asked[0] if asked else None)
        return found if found is None or found.model == model else replace(found, model=model)

    def of_job(self, job: MediaJob) -> Route | None:
        """Return by way of whom a job was given; None: that provider is not asked for anything any more."""
        return self.of(job.role, job.provider, job.model)


def _in_order(route: Route, command: ExecuteCall) -> Sequence[Route]:
    """Return a role's routes in the order in which a run asks them."""
    if not route.variants:
        return (route,)
    there = (route, *route.variants)
    key = command.run.session_id or command.run.run_id
    return [there[place] for place in in_order(route.role, key, [one.weight for one in there])]
