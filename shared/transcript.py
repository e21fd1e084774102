"""One call's text, put together by a listener from hints that get lost, come twice, or come late. Pure.

Hints carry (attempt, offset): a piece is told when it begins where the told text ends; one that begins beyond shows a
gap, and the listener asks whoever streams for what is missing. A later attempt begins the text anew. What the log says
in the end is right whatever was told before.
"""

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Piece:
    """The next piece of the text. `offset` 0 begins it; any other continues exactly what was told before."""

    attempt: int
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Restart:
    """What was told so far counts no more: the text begins anew."""

    attempt: int


Told = Piece | Restart


@dataclass(slots=True)
class Transcript:
    """What one listener has been told of one call. It keeps counts, not the text."""

    attempt: int = 0
    """0: nothing is known of any."""
    told: int = 0
    heard: int = 0
    """How far the attempt's text reaches, by what was heard."""
    doubted: bool = False
    """Something may have been missed without a trace."""
    over: bool = False
    _print: int = 0

    @property
    def behind(self) -> bool:
        """Whether something is missing that only whoever streams, or the log, can say."""
        return not self.over and (self.doubted or self.heard > self.told)

    def doubt(self) -> None:
        """Hints were lost, or the listener came late: ask."""
        self.doubted = not self.over

    def restart(self, attempt: int) -> list[Told]:
        """Take an attempt's announcement. Safe to repeat."""
        return self._begin(attempt, announced=True) if attempt > self.attempt and not self.over else []

    def take(self, attempt: int, offset: int, text: str) -> list[Told]:
        """Take a piece; returns what is new of it, in order. Pieces of an attempt before the latest are nothing."""
        if self.over or attempt < self.attempt:
            return []
        found = self._begin(attempt, announced=False) if attempt > self.attempt else []
        self.heard = max(self.heard, offset + len(text))
        if offset <= self.told:
            found += self._tell(text[self.told - offset :])
        return found

    def answer(self, attempt: int, offset: int, text: str, end: int) -> list[Told]:
        """Take what whoever streams says the text is by now."""
        found = self.take(attempt, offset, text)
        if attempt == self.attempt and not self.over:
            self.heard = max(self.heard, end)
            if self.told >= end:
                self.doubted = False
        return found

    def settle(self, text: str | None, attempts: int = 0) -> list[Told]:
        """Take the log's word, the last one: returns what is missing up to it. None: there is no answer.

        Where nothing was heard nothing is told: the listener has the log's word itself.
        """
        unheard = self.attempt == 0
        over, self.over, self.doubted = self.over, True, False
        if over or unheard or text is None:
            return []
        found: list[Told] = []
        if len(text) < self.told or crc32(text[: self.told].encode(errors="surrogatepass")) != self._print:
            found = self._begin(max(self.attempt, attempts), announced=True)
        return found + self._tell(text[self.told :])

    def _begin(self, attempt: int, *, announced: bool) -> list[Told]:
        known, self.attempt = self.attempt > 0, attempt
        self.told = self.heard = self._print = 0
        return [Restart(attempt)] if announced or known else []

    def _tell(self, text: str) -> list[Told]:
        if not text:
            return []
        offset, self.told = self.told, self.told + len(text)
        self.heard = max(self.heard, self.told)
        self._print = crc32(text.encode(errors="surrogatepass"), self._print)
        return [Piece(self.attempt, offset, text)]
