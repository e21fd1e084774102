"""Which web pages may read our answers and open a WebSocket here: our own, and those that the operator lists. Pure.

Browsers open sockets to any host for any page, with what they know of the user (cross-site WebSocket hijacking); what
they always send is where the page is from. Whoever sends no origin is no browser.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.config.errors import ConfigInvalid, Problem

VARIABLE = "SEGUE_CORS_ORIGINS"
ANY = "*"


@dataclass(frozen=True, slots=True)
class Origins:
    """Origins as `https://app.example.org`, besides our own; `*` is every one."""

    listed: frozenset[str] = frozenset()

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Origins":
        """Read the variable. Raises `ConfigInvalid` for what cannot be an origin."""
        said = [part.strip() for part in variables.get(VARIABLE, "").split(",") if part.strip()]
        wrong = [one for one in said if one != ANY and not _is_origin(one)]
        if wrong:
            expected = "origins with commas between, as https://app.example.org, without a path; or *"
            raise ConfigInvalid("environment", [Problem(VARIABLE, repr(one), expected) for one in wrong])
        return cls(frozenset(one.lower() for one in said))

    def allow(self, origin: str | None, host: str | None) -> bool:
        """Whether a page from `origin` may connect to us, who were reached as `host`."""
        if origin is None or ANY in self.listed or origin.lower() in self.listed:
            return True
        return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()


def _is_origin(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and text == f"{parts.scheme}://{parts.netloc}"
