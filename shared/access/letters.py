"""How an API key is written, and how one is known: `sgk_<id>_<secret><check>`. Pure.

The id has two parts: chance, and a tag of it under the server's secret, so that an id which nobody made here is known
for one without asking anybody. `check` is a CRC-32 of what stands before it: a key that was mistyped, or cut, is known
for one by anybody, and so are keys in texts that must not have any.
"""

import hmac
import re
import zlib
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

PREFIX: Final = "sgk_"
CHANCE_BYTES: Final = 26
"""Of a new key: 6 for its id, 20 (160 bits) for its secret."""
_ID_BYTES: Final = 6
_KEY: Final = re.compile(r"sgk_([a-z2-7]{16})_[a-z2-7]{39}")
_CHECK: Final = 7


@dataclass(frozen=True, slots=True)
class Made:
    """A new key. Its text is shown once, to whoever asked for it."""

    id: str
    text: str
    digest: str
    last4: str


def make(chance: bytes, secret: bytes, *, id: str | None = None) -> Made:
    """Return a key of `CHANCE_BYTES` random bytes; with `id` a new secret for that key."""
    name = id or _id(chance[:_ID_BYTES], secret)
    body = f"{PREFIX}{name}_{_letters(chance[_ID_BYTES:])}"
    text = body + _check(body)
    return Made(name, text, digest_of(text, secret), text[-4:])


def id_of(text: str) -> str | None:
    """Return a key's id; None for a text that is none, or one that was not copied whole."""
    found = _KEY.fullmatch(text)
    if found is None or _check(text[:-_CHECK]) != text[-_CHECK:]:
        return None
    return found[1]


def is_ours(id: str, secrets: Sequence[bytes]) -> bool:
    """Whether an id was made under one of our secrets. One that was not is a stranger's, or older than they are."""
    return any([hmac.compare_digest(id[10:], _tag(id[:10], secret)) for secret in secrets])


def digest_of(text: str, secret: bytes) -> str:
    """Return what is stored of a key: HMAC-SHA256, hexadecimal."""
    return hmac.new(secret, text.encode(), sha256).hexdigest()


def matches(text: str, digest: str, secrets: Sequence[bytes]) -> bool:
    """Whether a stored digest is a key's, under any of our secrets. Takes as long for every key."""
    return any([hmac.compare_digest(digest_of(text, secret), digest) for secret in secrets])


def _id(chance: bytes, secret: bytes) -> str:
    name = _letters(chance)
    return name + _tag(name, secret)


def _tag(name: str, secret: bytes) -> str:
    return _letters(hmac.new(secret, b"id " + name.encode(), sha256).digest()[:4])[:6]


def _check(body: str) -> str:
    return _letters(zlib.crc32(body.encode()).to_bytes(4))


def _letters(data: bytes) -> str:
    return b32encode(data).decode().rstrip("=").lower()
