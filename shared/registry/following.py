"""Following the registry's models and providers: what one gateway writes, every process knows within a moment.

What is heard is a hint; the bucket is read again every few seconds and after every reconnect, and of two entries the
one of the later version counts, so that neither a lost hint nor a replica that is behind does harm.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TypeVar

from nats.aio.msg import Msg

from shared.bus.connection import Bus
from shared.bus.errors import BusError
from shared.config.configuration import Configuration
from shared.contracts.message import Unreadable
from shared.contracts.registry import ModelEntry, NamesFreed, ProviderEntry
from shared.registry.models import MODELS, PROVIDERS, Overlay, freed_key, merged
from shared.topology import REGISTRY

log = logging.getLogger("segue.registry")

LOOK_S = 5.0

E = TypeVar("E", ModelEntry, ProviderEntry)
Changed = Callable[[Configuration], None]


@dataclass(slots=True)
class LiveModels:
    """What this process knows of them."""

    bus: Bus
    file: Configuration
    changed: Changed | None = None
    """Called with every new state, the first included when it differs from the file's."""
    _models: dict[str, ModelEntry] = field(default_factory=dict)
    _providers: dict[str, ProviderEntry] = field(default_factory=dict)
    _left_out: set[str] = field(default_factory=set)
    """Keys of entries that cannot be read."""
    _replaced: set[str] = field(default_factory=set)
    """Keys that were taken in since the look that goes on began, which may have read what was there before."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _following: asyncio.Task[None] | None = None
    _now: Configuration | None = None

    @property
    def configuration(self) -> Configuration:
        """The configuration as it is now."""
        return self._now or self.file

    @property
    def overlay(self) -> Overlay:
        """What was written over the file."""
        return Overlay(dict(self._models), dict(self._providers))

    async def start(self) -> None:
        """Read the registry, and follow what changes."""
        await self.bus.client.subscribe(f"$KV.{REGISTRY}.{MODELS}.*", cb=self._heard)
        await self.bus.client.subscribe(f"$KV.{REGISTRY}.{PROVIDERS}.*", cb=self._heard)
        self.bus.on_reconnect.append(self.reconnected)
        if await self._look():
            self._tell()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()

    async def reconnected(self) -> None:
        """To be called when the connection was made again: what was said meanwhile was missed."""
        self._wake.set()

    async def _heard(self, msg: Msg) -> None:
        try:
            kind = ModelEntry if msg.subject.split(".")[2] == MODELS else ProviderEntry
            self.take(kind.decode(msg.data))
        except Unreadable:
            self._wake.set()

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_S)
            self._wake.clear()
            try:
                if await self._look():
                    self._tell()
            except BusError:
                continue
            except Exception:  # whatever it is, the next look has its own chance: who does not follow serves old models
                log.exception("registry.not_read")

    async def _look(self) -> bool:
        """Read the registry again; whether anything is new."""
        self._replaced.clear()
        unreadable: dict[str, Unreadable] = {}
        models = await self.bus.registry.every(MODELS, ModelEntry, unreadable=unreadable.__setitem__)
        providers = await self.bus.registry.every(PROVIDERS, ProviderEntry, unreadable=unreadable.__setitem__)
        news = [_newer(self._models, key.partition(".")[2], entry, stored=True) for key, entry in models.items()]
        news += [_newer(self._providers, key.partition(".")[2], entry, stored=True) for key, entry in providers.items()]
        news.append(await self._freed(self._models, MODELS, models.keys() | unreadable.keys()))
        news.append(await self._freed(self._providers, PROVIDERS, providers.keys() | unreadable.keys()))
        left_out = unreadable.keys() - self._replaced
        for key in left_out - self._left_out:
            log.error("registry.entry_left_out", extra={"key": key, "error": str(unreadable[key])})
        self._left_out = left_out
        return any(news)

    async def _freed(self, there: dict[str, E], what: str, keys: Set[str]) -> bool:
        """Forget names that have no place any more; whether one of them said something."""
        gone = [name for name in there if f"{what}.{name}" not in keys]
        freed = (await self.bus.registry.readable(freed_key(what), NamesFreed))[0] if gone else None
        if freed is None:
            return False
        return any([not there.pop(name).empty for name in gone if there[name].version <= freed.version])

    def leaves_out(self, what: str, name: str) -> bool:
        """Whether the registry has an entry of this name that cannot be read: some other program wrote it."""
        return f"{what}.{name}" in self._left_out

    def take(self, entry: ModelEntry | ProviderEntry) -> None:
        """Take in an entry that this process has just written."""
        if isinstance(entry, ModelEntry):
            key = f"{MODELS}.{entry.role}"
            news = _newer(self._models, entry.role, entry)
        else:
            key = f"{PROVIDERS}.{entry.name}"
            news = _newer(self._providers, entry.name, entry)
        self._left_out.discard(key)
        self._replaced.add(key)
        if news:
            self._tell()

    def _tell(self) -> None:
        self._now = merged(self.file, self.overlay)
        log.info(
            "registry.models_changed",
            extra={
                "models": sum(not one.empty for one in self._models.values()),
                "providers": sum(not one.empty for one in self._providers.values()),
            },
        )
        if self.changed is not None:
            self.changed(self._now)


def _newer(there: dict[str, E], name: str, entry: E, *, stored: bool = False) -> bool:
    """Take an entry in unless a later version is known; what is stored also over what was heard of the same version and
    then refused, because another was first."""
    known = there.get(name)
    if known is not None and (known.version > entry.version or (known.version == entry.version and not stored)):
        return False
    if known == entry:
        return False
    there[name] = entry
    return True
