"""Which callback URLs are taken: what is evidently wrong is refused here, the finisher checks what it connects to."""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from shared.contracts.callbacks import MOST_URL_CHARS, Callback
from shared.contracts.ids import TenantId
from shared.outward import CLOSED, Forbidden, Network, Outward


class BadCallback(Exception):
    """A callback URL is not taken, and why."""


class CallbackDoor:
    """One a process. `signing`: tenants whose callbacks can be signed."""

    def __init__(self, signing: Collection[TenantId] = (), allowed: Sequence[Network] = ()) -> None:
        self._signing = frozenset(signing)
        self._outward = Outward(allowed)
        self._own = bool(allowed)

    def read(self, tenant: TenantId, url: str | None) -> Callback | None:
        """Return what is called back; None: nothing. Raises `BadCallback`."""
        if url is None:
            return None
        if len(url) > MOST_URL_CHARS:
            raise BadCallback(f"the URL is longer than {MOST_URL_CHARS:,} characters")
        try:
            self._outward.check(url)
        except Forbidden as forbidden:
            raise BadCallback(str(forbidden)) from forbidden
        host = urlsplit(url).hostname or ""
        if not self._own and (host == "localhost" or host.endswith((".localhost", ".local", ".internal"))):
            raise BadCallback(f"{host} {CLOSED}")
        if any(map(str.isspace, url)) or not url.isascii():
            raise BadCallback("a URL has no spaces, and other characters than ASCII are written as %…")
        if tenant not in self._signing:
            raise BadCallback(
                f"callbacks are signed, and there is no secret for tenant {tenant!r}: set SEGUE_CALLBACK_SECRETS"
            )
        return Callback(url=url)
