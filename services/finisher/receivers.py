"""Who may be asked now: receivers of callbacks that are slow or dead must not take the places of the others.

What it remembers is a hint of this process: another copy, or this one after a restart, finds out for itself.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

PER_ORIGIN: Final = 8
PER_TENANT: Final = 32
OPENS_AFTER: Final = 5
FIRST_OPEN_S: Final = 30.0
MOST_OPEN_S: Final = 600.0
REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    open_until: float = 0.0
    probing: bool = False


def origin_of(url: str) -> str:
    """Return a URL's scheme, host and port: what fails together."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


class Receivers:
    """The places at every origin and of every tenant, and a circuit for each origin that fails in a row."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: Counter[str] = Counter()
        self._of: Counter[str] = Counter()
        self._circuits: OrderedDict[str, _Circuit] = OrderedDict()

    def enter(self, tenant: str, origin: str) -> float | None:
        """Take a place and return None; or return for how many seconds to leave the origin alone (0: it is busy)."""
        circuit = self._circuits.get(origin)
        if circuit is not None and circuit.failures >= OPENS_AFTER:
            left_s = circuit.open_until - self._clock()
            if left_s > 0:
                return left_s
            if circuit.probing:
                return 0.0
            circuit.probing = True
        elif self._at[origin] >= PER_ORIGIN or self._of[tenant] >= PER_TENANT:
            return 0.0
        self._at[origin] += 1
        self._of[tenant] += 1
        return None

    def leave(self, tenant: str, origin: str, *, well: bool | None) -> None:
        """Give the place back. `well`: whether the receiver worked; None: nothing is known of it."""
        for counter, key in ((self._at, origin), (self._of, tenant)):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]
        circuit = self._circuits.get(origin)
        if circuit is not None:
            circuit.probing = False
        if well:
            self._circuits.pop(origin, None)
        elif well is False:
            circuit = self._circuits.setdefault(origin, _Circuit())
            self._circuits.move_to_end(origin)
            circuit.failures += 1
            if circuit.failures >= OPENS_AFTER:
                open_s = min(MOST_OPEN_S, FIRST_OPEN_S * 2.0 ** min(circuit.failures - OPENS_AFTER, 10))
                circuit.open_until = self._clock() + open_s
            while len(self._circuits) > REMEMBERED:
                self._circuits.popitem(last=False)
