"""The text of one answer as it goes out, over attempts that begin again and pieces that get lost. Pure.

What has gone out cannot be taken back. So a new attempt's text goes on only where it says the same so far, a piece
after a lost one waits for the whole, and the end says whether what went out was the beginning of the answer at all.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pieces:
    """What has gone out, and what was heard of the attempt that goes on."""

    _sent: list[str] = field(default_factory=list)
    _attempt: int = 0
    _heard: list[str] = field(default_factory=list)
    _heard_chars: int = 0
    _again: bool = False
    """A later attempt than the first that was heard."""

    sent_chars: int = 0

    def begin(self, attempt: int) -> None:
        """An attempt begins, perhaps again."""
        if attempt != self._attempt:
            self._again = self._again or self._attempt > 0
            self._attempt, self._heard, self._heard_chars = attempt, [], 0

    def take(self, attempt: int, offset: int, text: str) -> str:
        """Return what can go out now that a piece has come: mostly the piece."""
        if attempt < self._attempt:
            return ""
        self.begin(attempt)
        if offset != self._heard_chars:
            return ""  # one before it was lost: the end has it all
        self._heard.append(text)
        self._heard_chars += len(text)
        if not self._again and self.sent_chars == offset:
            return self._out(text)
        heard = "".join(self._heard)
        if self._heard_chars <= self.sent_chars or not heard.startswith("".join(self._sent)):
            return ""
        return self._out(heard[self.sent_chars :])

    def rest(self, whole: str) -> str | None:
        """Return what is missing of the whole answer; None when something else has gone out."""
        if self.sent_chars and not whole.startswith("".join(self._sent)):
            return None
        return self._out(whole[self.sent_chars :])

    def _out(self, text: str) -> str:
        self._sent.append(text)
        self.sent_chars += len(text)
        return text
