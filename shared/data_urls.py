"""`data:` URLs (RFC 2397) of images. Pure."""

import base64
import re
from typing import Final

_DATA: Final = re.compile(r"data:([A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+)(?:;[^,;]+)*;base64,")


def split(url: str) -> tuple[str, str] | None:
    """Return (media type, base64) of a data URL; None for any other text."""
    found = _DATA.match(url)
    return None if found is None else (found.group(1).lower(), url[found.end() :])


def joined(media_type: str, data: bytes) -> str:
    """Return bytes as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
