"""What one provider may be asked, by all executors together: requests in windows, and tokens a minute.

While more is wanted than a limit allows, tenants take turns (`fairness`). Whoever is refused tells the other executors
over core NATS that it waits; as long as nobody else does, nothing is asked but the limit itself.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from secrets import token_hex
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error

from services.executor import windows
from services.executor.fairness import Owner, may_take
from services.executor.pricing import learned, most_tokens
from services.executor.waiting import TOKENS, Wait, Waiting
from services.executor.windows import Later, Reserved, reserve, settle, signed
from shared import subjects
from shared.bus.connection import Bus
from shared.bus.grants import Full, Granted, Grants
from shared.bus.reader import Reader
from shared.config.providers import Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.health import LimitWait, TokenWindow
from shared.contracts.message import Unreadable
from shared.topology import DAY_S, Window

USE_WITHIN_S = 0.5
"""A grant that is older is given back, and another taken: the rest of its window's margin is for the way."""
ON_ITS_WAY_S: Final = 1.0
"""How long after it was sent a request may reach the provider, for its tokens to count from then on."""
TRIES = 50
GRACE_S: Final = 2.0
"""How much later than it was told to a call may come back: then its place is others' again."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One entry of `rate_limiting`."""

    name: str
    windows: tuple[Window, ...]
    tokens_per_minute: int | None = None
    token_window_s: int = 60


@dataclass(frozen=True, slots=True)
class Permit:
    """A request may go out now."""

    granted: Granted
    reserved: Reserved | None = None
    estimated: int = 0
    """Tokens of the prompt, as we count them."""

    @property
    def stale(self) -> bool:
        return time.monotonic() - self.granted.at > USE_WITHIN_S


@dataclass(frozen=True, slots=True)
class Busy:
    """The limit is used up for so many seconds, or what is left of it is others'."""

    seconds: float
    what: str
    window: str
    wants: int = 1


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, and whether it has to look whose turn it is."""

    owner: Owner
    call: str
    estimated: int
    tokens: int
    waiting: Waiting
    contended: bool

    @property
    def key(self) -> str:
        return ".".join(self.owner)


@dataclass(slots=True)
class Permits:
    """Permits for every provider that has a limit."""

    bus: Bus
    limits: Mapping[str, Limit] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of priorities, where a tenant's own calls compete."""
    _grants: Grants = field(init=False)
    _chance: random.Random = field(default_factory=random.Random)
    _waiting: dict[str, Waiting] = field(init=False)
    _turns: dict[str, asyncio.Lock] = field(init=False)
    _ratios: dict[str, float] = field(default_factory=dict)
    """By model: how many tokens it counts where we estimate one."""

    def __post_init__(self) -> None:
        self._grants = Grants(self.bus.jetstream)
        self._waiting = {name: Waiting() for name in self.limits}
        self._turns = {name: asyncio.Lock() for name in self.limits}

    async def start(self) -> None:
        """Hear who waits. Without limits there is nobody to hear of."""
        if self.limits:
            await self.bus.client.subscribe(subjects.limit_wait("*", "*", "*"), future=Reader(self._heard))

    async def take(self, route: Route, call: ExecuteCall) -> Permit | Busy:
        """Return a permit for one request, or for how long there is none. Without a limit it costs nothing."""
        limit = self.limits.get(route.limit or "")
        if limit is None:
            return Permit(Granted(time.monotonic()))
        asker = self._asker(limit, route, call)
        if asker.contended:
            # One at a time: those that look together would only be in each other's way.
            async with self._turns[limit.name]:
                found = await self._take(limit, asker)
        else:
            found = await self._take(limit, asker)
        if isinstance(found, Permit):
            await self._leave(limit, asker.owner, asker.call)
        return found

    async def waits(self, route: Route, call: ExecuteCall, busy: Busy) -> None:
        """Tell everybody that a call which was refused will come back."""
        if (limit := self.limits.get(route.limit or "")) is not None:
            wait = LimitWait(
                call=_name(call), window=busy.window, wants=busy.wants, lasts_s=round(busy.seconds + GRACE_S, 3)
            )
            await self._say(limit, _owner(call), wait)

    async def leaves(self, route: Route, call: ExecuteCall) -> None:
        """Tell everybody that a call which was refused will not come back."""
        if (limit := self.limits.get(route.limit or "")) is not None:
            await self._leave(limit, _owner(call), _name(call))

    async def give_back(self, route: Route, permit: Permit) -> None:
        """Let others have a permit that nothing was sent with."""
        await self._grants.give_back(permit.granted.taken)
        await self.used(route, permit, 0)

    async def used(
        self, route: Route, permit: Permit, tokens: int | None, took_s: float = 0.0, prompt_tokens: int = 0
    ) -> None:
        """Say what a request really took, and how long ago it was sent.

        `tokens` None: nobody knows how many, so that it keeps what was held for it. `prompt_tokens`: of them, as the
        provider counts, from which later prompts' are estimated.
        """
        limit = self.limits.get(route.limit or "")
        if permit.estimated and prompt_tokens:
            self._ratios[route.model] = learned(self._ratios.get(route.model, 1.0), permit.estimated, prompt_tokens)
        if limit is not None and permit.reserved is not None and tokens is not None:
            # It reached the provider before its answer came, and not much later than it was sent.
            sent_s = time.time() - max(0.0, took_s - ON_ITS_WAY_S)
            await self._settle(limit, permit.reserved, used=tokens, sent_s=sent_s)

    def _asker(self, limit: Limit, route: Route, call: ExecuteCall) -> _Asker:
        owner, waiting = _owner(call), self._waiting[limit.name]
        estimated = tokens = 0
        if limit.tokens_per_minute is not None:
            estimated, answer = most_tokens(call, route)
            prompt = ceil(estimated * self._ratios.get(route.model, 1.0))
            tokens = min(prompt + answer, limit.tokens_per_minute)
        contended = bool(waiting.calls) and waiting.others_s(owner, now_s=time.monotonic()) > 0
        return _Asker(owner, _name(call), estimated, tokens, waiting, contended)

    async def _take(self, limit: Limit, asker: _Asker) -> Permit | Busy:
        """Look whether the tokens fit, take the grants, then hold the tokens: most refusals write nothing."""
        read: tuple[TokenWindow | None, int] | None = None
        if limit.tokens_per_minute is not None:
            read = await self.bus.limits.get(limit.name, TokenWindow)
            if isinstance(fits := self._fits(limit, asker, read[0]), Busy):
                return fits

        def turn(window: Window, held: Mapping[Owner, int]) -> float:
            shorter = frozenset(one.name for one in limit.windows if one.seconds <= window.seconds)
            return self._others_s(asker, shorter, window.most, held, 1)

        waiting = asker.waiting.of(asker.owner, now_s=time.monotonic())
        granted = await self._grants.take(
            limit.name, limit.windows, asker.owner, turn=turn if asker.contended else None, waiting=waiting
        )
        if isinstance(granted, Full):
            most = next(one.most for one in limit.windows if one.name == granted.window)
            return Busy(granted.seconds, f"{most:,} requests a {granted.window}", granted.window)
        if read is None:
            return Permit(granted)
        held = await self._hold(limit, asker, *read)
        if isinstance(held, Busy):
            await self._grants.give_back(granted.taken)
            return held
        return Permit(granted, held, asker.estimated)

    async def _hold(self, limit: Limit, asker: _Asker, record: TokenWindow | None, revision: int) -> Reserved | Busy:
        for _ in range(TRIES):
            found = self._fits(limit, asker, record)
            if isinstance(found, Busy):
                return found
            name = token_hex(4)
            if await self.bus.limits.put(limit.name, signed(found.record, record, name), revision) is not None:
                return found
            record, revision = await self.bus.limits.get(limit.name, TokenWindow)
            if record is not None and name in record.writes:
                return found
        return self._no_tokens(limit, asker, 1.0)

    def _fits(self, limit: Limit, asker: _Asker, record: TokenWindow | None) -> Reserved | Busy:
        """Return the tokens as they would be held now; or for how long they do not fit, or are others'."""
        most, now_s = limit.tokens_per_minute or 0, time.time()
        size_s = limit.token_window_s
        found = reserve(record, now_s=now_s, tokens=asker.tokens, most=most, window_s=size_s, owner=asker.key)
        if isinstance(found, Later):
            return self._no_tokens(limit, asker, found.seconds)
        if asker.contended:
            held = {
                _owner_of(key): tokens for key, tokens in windows.held(record, now_s=now_s, window_s=size_s).items()
            }
            if others_s := self._others_s(asker, frozenset({TOKENS}), most, held, asker.tokens):
                first_s = windows.first_over_s(record, now_s=now_s, window_s=size_s)
                return self._no_tokens(limit, asker, min(first_s, others_s))
        return found

    def _no_tokens(self, limit: Limit, asker: _Asker, seconds: float) -> Busy:
        what = f"{limit.tokens_per_minute:,} tokens a minute"
        return Busy(seconds + self._chance.random(), what, TOKENS, asker.tokens)

    def _others_s(
        self, asker: _Asker, refused_by: frozenset[str], most: int, held: Mapping[Owner, int], wants: int
    ) -> float:
        """Return 0 when it is the asker's turn, else for how long it may be others'."""
        now_s = time.monotonic()
        claims = asker.waiting.claims(refused_by, held, asker.owner, asker.call, wants, now_s=now_s)
        if may_take(most, claims, asker.owner, self.weights, wants):
            return 0.0
        return max(0.05, asker.waiting.others_s(asker.owner, now_s=now_s))

    async def _settle(self, limit: Limit, reserved: Reserved, *, used: int, sent_s: float) -> None:
        names: set[str] = set()

        def settled(record: TokenWindow | None) -> TokenWindow | None:
            if record is not None and not names.isdisjoint(record.writes):
                return None
            names.add(name := token_hex(4))
            size_s = limit.token_window_s
            changed = settle(record, reserved, used=used, now_s=time.time(), window_s=size_s, sent_s=sent_s)
            return signed(changed, record, name)

        await self.bus.limits.update(limit.name, TokenWindow, settled)

    async def _leave(self, limit: Limit, owner: Owner, call: str) -> None:
        if self._waiting[limit.name].knows(owner, call):
            await self._say(limit, owner, LimitWait(call=call, window="", lasts_s=0))

    async def _say(self, limit: Limit, owner: Owner, wait: LimitWait) -> None:
        self._note(limit.name, owner, wait)
        with contextlib.suppress(Error):  # not connected: the limit holds without it
            await self.bus.client.publish(subjects.limit_wait(limit.name, *owner), wait.encode())

    def _heard(self, msg: Msg) -> None:
        with contextlib.suppress(Unreadable):
            limit, *owner = subjects.limit_wait_of(msg.subject)
            if limit in self._waiting:
                self._note(limit, (owner[0], owner[1]), LimitWait.decode(msg.data))

    def _note(self, limit: str, owner: Owner, wait: LimitWait) -> None:
        if not wait.lasts_s:
            self._waiting[limit].forget(owner, wait.call)
            return
        now_s = time.monotonic()
        until_s = now_s + min(wait.lasts_s, DAY_S)
        self._waiting[limit].note(owner, wait.call, Wait(wait.window, wait.wants, until_s), now_s=now_s)


def _owner(call: ExecuteCall) -> Owner:
    return call.run.tenant, str(call.run.priority)


def _owner_of(key: str) -> Owner:
    tenant, _, priority = key.partition(".")
    return tenant, priority


def _name(call: ExecuteCall) -> str:
    return f"{call.run.run_id}.{call.call}"
