"""`POST /embeddings`: vectors that say which words a text has, so that alike texts are near each other."""

import json
import math
import re
import zlib
from typing import Any, Final

from simulator.chat_request import CHARS_PER_TOKEN
from simulator.exchange import JSON, Exchange, Gone, TooLarge
from simulator.made import asked_for
from simulator.openrouter import wire
from simulator.openrouter.failures import fail
from simulator.openrouter.turn import PREFIX, begin
from simulator.simulation import Simulation

EMBEDDINGS: Final = f"{PREFIX}/embeddings"
DIMENSIONS: Final = 64
MOST_DIMENSIONS: Final = 4_096


async def embed(simulation: Simulation, exchange: Exchange) -> None:
    """Answer a request for embeddings."""
    try:
        fields = json.loads(await exchange.body())
    except Gone:
        return
    except TooLarge:
        await exchange.respond(413, wire.error_body(413, "the request body is too large"), JSON)
        return
    except ValueError as error:
        await exchange.respond(400, wire.error_body(400, f"the body is not valid JSON: {error}"), JSON)
        return
    model, given = (fields.get("model"), fields.get("input")) if isinstance(fields, dict) else (None, None)
    inputs: list[Any] = given if isinstance(given, list) else [given]
    if not isinstance(model, str) or not inputs or not all(_embeddable(one) for one in inputs):
        said = "'model' must be a string and 'input' texts or lists of tokens"
        await exchange.respond(400, wire.error_body(400, said), JSON)
        return
    wanted = fields.get("dimensions")
    size = wanted if isinstance(wanted, int) and 0 < wanted <= MOST_DIMENSIONS else DIMENSIONS
    texts = [one if isinstance(one, str) else " ".join(map(str, one)) for one in inputs]
    turn = begin(simulation, exchange, asked_for("embedding", model, "\n".join(texts)), EMBEDDINGS)
    try:
        if turn.fault is not None and await fail(turn, turn.fault):
            return
        used = turn.bill(0) or "null"
        data = [
            {"object": "embedding", "index": place, "embedding": vector(text, size)} for place, text in enumerate(texts)
        ]
        body = f'{{"object":"list","data":{json.dumps(data)},"model":{json.dumps(model)},"usage":{used}}}'
        turn.settle("answered", 200)
        await exchange.respond(200, body.encode(), JSON, turn.id_header)
    finally:
        turn.settle("disconnected")


def _embeddable(one: Any) -> bool:
    return (isinstance(one, str) and one != "") or (isinstance(one, list) and all(isinstance(n, int) for n in one))


def vector(text: str, size: int) -> list[float]:
    """Return a vector of length 1: of each word, and a little of how long the text is."""
    found = [0.0] * size
    found[0] = 1e-3 * (1 + len(text) // CHARS_PER_TOKEN)
    for word in re.findall(r"\w+", text.lower()):
        digest = zlib.crc32(word.encode())
        found[digest % size] += 1.0 if digest >> 16 & 1 else -1.0
    length = math.sqrt(sum(value * value for value in found)) or 1.0
    return [value / length for value in found]
