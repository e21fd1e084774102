"""OpenAI's embeddings as bytes: what is sent, and what an answer means. Pure. (OpenAI "Embeddings")

Vectors are handed on as base64 of little-endian float32, which is what OpenAI's own `encoding_format: base64` is.
"""

import base64
import binascii
from array import array
from typing import Any

from services.executor.providers import Answered, Asked, Failed
from services.executor.providers.amounts import word
from services.executor.providers.failures import read_fault
from services.executor.providers.objects import read_object
from services.executor.providers.openai_wire import usage_of
from services.executor.taxonomy import MALFORMED


def embedding_fields(asked: Asked, model: str) -> dict[str, Any]:
    """Return the request. Plain numbers are asked for: every server has those."""
    call = asked.call
    extra = call.parameters.extra if call.parameters is not None else None
    return {"model": model, "input": list(call.embed or ()), "encoding_format": "float", **(extra or {})}


def read_embeddings(data: bytes, count: int, now_s: float) -> Answered | Failed:
    """Return what a 200 says: as many vectors as were asked for, in their order."""
    body = read_object(data)
    if isinstance(body, Failed):
        return body
    usage, cost = usage_of(body.get("usage"))
    if body.get("error"):
        return read_fault(200, body["error"], now_s, usage=usage, cost_usd=cost)
    found = body.get("data")
    items = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    vectors = {one.get("index", place): _packed(one.get("embedding")) for place, one in enumerate(items)}
    ordered = [vectors.get(place) for place in range(count)]
    packed = tuple(one for one in ordered if one is not None)
    if len(packed) != count or len(items) != count:
        said = f"the answer has {len(items)} embeddings, {len(packed)} of them usable, for {count} inputs"
        return Failed(MALFORMED, said, 200, usage=usage, cost_usd=cost)
    return Answered("", "stop", word(body.get("model")), usage, cost, embeddings=packed)


def _packed(vector: object) -> str | None:
    """Return a vector as base64; None for what is none."""
    if isinstance(vector, str):
        try:
            size = len(base64.b64decode(vector, validate=True))
        except (binascii.Error, ValueError):
            return None
        return vector if size and size % 4 == 0 else None
    if not isinstance(vector, list) or not vector:
        return None
    try:
        return base64.b64encode(array("f", vector).tobytes()).decode()
    except (TypeError, OverflowError):
        return None
