"""What is said beside the log while a call is answered: heard by whoever listens now, never decided upon."""

from pydantic import NonNegativeInt, PositiveInt

from shared.contracts.ids import CallName
from shared.contracts.message import Message


class TextDelta(Message):
    """A piece of a call's text as it came in. `token.<tenant>.<run>.<call>`, by the executor, over core NATS.

    Losing one loses a hint: the next one's offset shows the gap, and `sofar` fills it.
    """

    call: CallName
    attempt: PositiveInt
    offset: NonNegativeInt = 0
    """Where it stands in the attempt's text, in characters (Unicode code points)."""
    text: str = ""
    restart: bool = False
    """The text begins anew with this attempt; what came before counts no more."""


class AskText(Message):
    """What is missing? `sofar.<tenant>.<run>.<call>`, by listeners; who streams the call answers with `TextSoFar`."""

    attempt: NonNegativeInt = 0
    offset: NonNegativeInt = 0
    """How much of that attempt's text the listener has."""


class TextSoFar(Message):
    """An attempt's text behind what a listener has, as much as one message takes."""

    call: CallName
    attempt: PositiveInt
    offset: NonNegativeInt
    text: str
    end: NonNegativeInt
    """How long the text is by now: what is missing up to there is asked for again."""
