"""Which optional parameter a server refused, so that it is asked again without it. Pure."""

import re
from collections.abc import Mapping
from typing import Final

_UNKNOWN: Final = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|not (?:be )?(?:supported|permitted|allowed|available|implemented)"
    r"|does ?n[o']t support|extra (?:inputs|fields)|no such|invalid (?:field|parameter|argument)|cannot be used",
    re.IGNORECASE,
)
_SCHEMA: Final = re.compile(r"response_format|json_schema|structured output|guided|grammar", re.IGNORECASE)
_BAD_SCHEMA: Final = re.compile(r"invalid (?:json )?schema|schema is (?:not valid|invalid)", re.IGNORECASE)
_NEEDED: Final = frozenset({"model", "messages", "stream"})


def refused_parameter(status: int, message: str, sent: Mapping[str, object]) -> tuple[str, str] | None:
    """Return (parameter, what to send instead or "") when the error is about one that can be left out, else None."""
    if status not in {400, 422}:
        return None
    if "response_format" in sent and _SCHEMA.search(message):
        return "response_format", ""
    if "max_tokens" in sent and "max_completion_tokens" in message:
        return "max_tokens", "max_completion_tokens"
    if _UNKNOWN.search(message):
        for name in sorted(sent.keys() - _NEEDED, key=len, reverse=True):
            if re.search(rf"\b{re.escape(name)}\b", message):
                return name, ""
    return None


def of_the_schema(message: str) -> bool:
    """Whether it is this one schema that was refused, not schemas."""
    return _BAD_SCHEMA.search(message) is not None
