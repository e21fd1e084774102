"""Which calls can be answered from the cache, and what they are known by there. Pure.

A call that asks for it (`cache: true`), or one that is deterministic as far as a model can be (temperature 0) and does
not ask for the contrary. The key is made of everything that the provider is told, and of who is asked: a word more in a
prompt, another model behind the role, another setting, and it is another call.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from shared.contracts.cache import CachedAnswer
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import CallSettled


def may_cache(call: ExecuteCall, parameters: Mapping[str, JsonValue]) -> bool:
    """Whether an answer to a call is as good as any other answer to it. `parameters`: the role's."""
    if call.cache is not None:
        return call.cache
    temperature = call.temperature if call.temperature is not None else parameters.get("temperature")
    return temperature == 0


def key_of(call: ExecuteCall, asked: Sequence[str], parameters: Mapping[str, JsonValue]) -> str:
    """Return the key of a call; `asked`: who is asked: the provider, its address, the model."""
    told: list[Any] = [
        *asked,
        dict(parameters),
        [message.model_dump(mode="json", exclude_none=True) for message in call.messages],
        call.temperature,
        call.max_tokens,
        call.top_p,
        call.response_schema,
        call.settings,
    ]
    if call.embed is not None:
        told.append({"embed": list(call.embed)})
    if call.parameters is not None:
        told.append(call.parameters.model_dump(mode="json", exclude_none=True))
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode(errors="surrogatepass"))
    return f"{call.run.tenant}.{digest.hexdigest()}"


def kept(fact: CallSettled, now: datetime) -> CachedAnswer | None:
    """Return what is kept of an answer; None of one that was cut short, or came another way than asked for."""
    if (
        fact.outcome != "answered"
        or not fact.text
        or fact.tool_calls
        or fact.failed
        or fact.finish_reason not in (None, "stop")
    ):
        return None
    return CachedAnswer(
        text=fact.text,
        artifacts=fact.artifacts,
        role=fact.role,
        provider=fact.provider or "",
        model=fact.model or "",
        finish_reason=fact.finish_reason,
        usage=fact.usage,
        cost_usd=fact.cost_usd,
        cost_known=fact.cost_known,
        simulated=fact.simulated,
        took_s=fact.took_s,
        answered_at=now,
    )


def stands(found: CachedAnswer, until: datetime) -> bool:
    """Whether everything that an answer refers to is still there by then."""
    return all(one.expires_at > until for one in found.artifacts)


def answered(call: ExecuteCall, found: CachedAnswer) -> CallSettled:
    """Return the settlement of a call that the cache answers: it costs nothing, and says what it would have."""
    return CallSettled(
        run=call.run,
        call=call.call,
        purpose=call.purpose,
        outcome="answered",
        text=found.text,
        artifacts=found.artifacts,
        role=found.role,
        asked_role=call.role,
        provider=found.provider,
        model=found.model,
        finish_reason=found.finish_reason,
        simulated=found.simulated,
        cached=True,
        saved_usd=found.cost_usd,
        category=call.category,
        note=call.note,
        spent=call.spent,
    )
