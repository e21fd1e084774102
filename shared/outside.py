"""What an outside system sees of Segue in its own account on the bus: one table. (docs/bus.md, ADR 0023)

`there` is the subject in the outsider's account, `here` the one in Segue's. The server's accounts are made from it, and
so is the AsyncAPI document.
"""

from dataclasses import dataclass
from typing import Final

from shared.subjects import ROOT, door


@dataclass(frozen=True, slots=True)
class Service:
    """A question with an answer."""

    name: str
    said: tuple[str, ...]
    """Behind `segue.` there and behind the tenant here; `*` for what the asker says."""
    of_executors: bool = False
    """Answered by the executor that is at work on it, under the subject that gateways ask on too."""

    @property
    def there(self) -> str:
        return ".".join((ROOT, *self.said))

    def here(self, tenant: str) -> str:
        if self.of_executors:
            kind, *rest = self.said
            return ".".join((ROOT, kind, tenant, *rest))
        return door(tenant, *self.said)


@dataclass(frozen=True, slots=True)
class Feed:
    """What is heard, without asking. A hint: what counts is read."""

    name: str
    kind: str
    rest: tuple[str, ...]

    @property
    def there(self) -> str:
        return ".".join((ROOT, self.kind, *self.rest))

    def here(self, tenant: str) -> str:
        return ".".join((ROOT, self.kind, tenant, *self.rest))


CHAT: Final = Service("chat", ("chat",))
WORKFLOW: Final = Service("workflow", ("workflow",))
TEMPLATE: Final = Service("template", ("template", "*"))
CONTROL: Final = Service("control", ("control", "*", "*"))
READ: Final = Service("read", ("read", "*"))
TEXT: Final = Service("text", ("sofar", "*", "*"), of_executors=True)
SERVICES: Final = (CHAT, WORKFLOW, TEMPLATE, CONTROL, READ, TEXT)

LIVE: Final = Feed("live", "live", (">",))
TOKENS: Final = Feed("tokens", "token", ("*", "*"))
FEEDS: Final = (LIVE, TOKENS)
