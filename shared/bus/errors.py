"""What the bus can say no with."""


class BusError(Exception):
    """Something on the bus did not go as asked."""


class Unavailable(BusError):
    """The bus did not answer in time: not connected, no leader, or overloaded. Try again later; nothing is decided."""

    def __init__(self, what: str, waited_s: float) -> None:
        super().__init__(
            f"{what}: no answer from NATS within {waited_s:.1f} s; is the server of SEGUE_NATS_URL up and healthy?"
        )
        self.what, self.waited_s = what, waited_s


class QueueFull(BusError):
    """The stream takes no more now. What it holds is kept; come back after `retry_after_s`.

    `of_subject`: only this subject's share is used up (one tenant's requests of one priority); others still get in.
    """

    def __init__(self, subject: str, retry_after_s: float = 1.0, *, of_subject: bool = False) -> None:
        what = "the share of" if of_subject else "the queue behind"
        super().__init__(f"{what} {subject!r} is full; try again in {retry_after_s:.0f} s")
        self.subject, self.retry_after_s, self.of_subject = subject, retry_after_s, of_subject


class NotProvisioned(BusError):
    """A stream, consumer or bucket that the topology names is not there."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} does not exist on this NATS server; run `python -m shared.provision` first")
        self.what = what


class Refused(BusError):
    """JetStream answered with an error of its own. `repeated`: not the first time that it was asked the same."""

    def __init__(self, subject: str, code: int, err_code: int, description: str, *, repeated: bool = False) -> None:
        super().__init__(f"JetStream refused {subject!r}: {description} (status {code}, error {err_code})")
        self.subject, self.code, self.err_code, self.description = subject, code, err_code, description
        self.repeated = repeated
