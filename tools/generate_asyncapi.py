"""Writes docs/reference/asyncapi.json: what outside systems say and hear. `--check` fails when it drifted."""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared import version
from shared.contracts import door
from shared.contracts.facts import FACTS
from shared.contracts.hints import AskText, TextDelta, TextSoFar
from shared.contracts.ids import Purpose, Verb
from shared.outside import CHAT, CONTROL, LIVE, READ, TEMPLATE, TEXT, TOKENS, WORKFLOW, Service

TARGET: Final = Path(__file__).resolve().parents[1] / "docs" / "reference" / "asyncapi.json"
SCHEMAS: Final = "#/components/schemas/"

Json = dict[str, Any]

ASKED: Final[tuple[tuple[Service, tuple[str, ...], type[BaseModel], tuple[type[BaseModel], ...], str], ...]] = (
    (CHAT, (), door.AskChat, (door.Begun,), "Ask for an answer to a message."),
    (WORKFLOW, (), door.AskWorkflow, (door.Begun,), "Have a workflow of your own run."),
    (TEMPLATE, ("name",), door.AskTemplate, (door.Begun,), "Have a template run."),
    (CONTROL, ("run_id", "verb"), door.AskControl, (door.Steered,), "Cancel, pause, resume, approve or reject."),
    (READ, ("run_id",), door.AskRead, (door.RunRead, door.PieceRead), "Read where a run is, and its answer."),
    (TEXT, ("run_id", "call"), AskText, (TextSoFar,), "Have the text so far of a call that is being written."),
)
PARAMETERS: Final[dict[str, Json]] = {
    "name": {"description": "A template's name."},
    "run_id": {"description": "The run's id, as `Begun` said it."},
    "verb": {"description": "What is wanted of the run.", "enum": list(Verb)},
    "task": {"description": "The task's name within the run: queue and place, such as 0-1."},
    "number": {"description": "Counted from 1."},
    "attempt": {"description": "Counted from 1."},
    "purpose": {"description": "What the call is for.", "enum": list(Purpose)},
    "call": {"description": "The call's name within the run: `answer`, `categorize`, a task's `0-1`."},
}
KEYED: Final = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "Makes a repeated request the same run. `Idempotency-Key` means the same.",
        }
    },
}
STORED: Final = {
    "type": "object",
    "properties": {
        "Nats-Sequence": {"type": "string", "description": "The event's number on the log: orders a run's events."},
        "Segue-Payload": {
            "type": "string",
            "description": "Only of an event over 256 KB: its body is an outline, or empty; read the run for the rest.",
        },
    },
}


def address(service: Service, names: tuple[str, ...]) -> str:
    """Return a subject with names for what the asker says."""
    found = iter(names)
    return ".".join(f"{{{next(found)}}}" if token == "*" else token for token in service.there.split("."))


def parameters(where: str) -> Json:
    names = re.findall(r"{(\w+)}", where)
    return {"parameters": {name: PARAMETERS[name] for name in names}} if names else {}


def schemas(kinds: list[type[BaseModel]]) -> Json:
    """Return the schemas of messages, and of what they are made of, by name."""
    _, made = models_json_schema([(kind, "validation") for kind in kinds], ref_template=SCHEMAS + "{model}")
    found: Json = _plain(made["$defs"])
    return dict(sorted(found.items()))


def _plain(schema: Any) -> Any:
    """Leave out what AsyncAPI means otherwise: there a `discriminator` is the name of a property."""
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name != "discriminator"}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def message(kind: type[BaseModel], headers: Json | None = None) -> Json:
    summary = " ".join((kind.__doc__ or "").split())
    made: Json = {"name": kind.__name__, "summary": summary, "payload": {"$ref": f"{SCHEMAS}{kind.__name__}"}}
    return made if headers is None else {**made, "headers": headers}


def document() -> Json:
    """Return the document."""
    channels: Json = {}
    operations: Json = {}
    messages: Json = {door.Refused.__name__: message(door.Refused)}
    kinds: list[type[BaseModel]] = [door.Refused]

    def channel(name: str, where: str | None, said: str, *carried: type[BaseModel]) -> Json:
        refs = {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in carried}
        made: Json = {"address": where, "description": said, "messages": refs}
        channels[name] = {**made, **parameters(where or "")}
        return {"$ref": f"#/channels/{name}"}

    def messages_of(name: str, *carried: type[BaseModel]) -> list[Json]:
        return [{"$ref": f"#/channels/{name}/messages/{kind.__name__}"} for kind in carried]

    for service, names, asks, answers, said in ASKED:
        keyed = service in (CHAT, WORKFLOW, TEMPLATE)
        messages |= {asks.__name__: message(asks, KEYED if keyed else None)}
        messages |= {kind.__name__: message(kind) for kind in answers}
        kinds += [asks, *answers]
        told = f"{service.name}Answer"
        also = () if service.of_executors else (door.Refused,)  # where nobody writes, nobody answers
        operations[service.name] = {
            "action": "receive",
            "summary": said,
            "channel": channel(service.name, address(service, names), said, asks),
            "messages": messages_of(service.name, asks),
            "reply": {
                "channel": channel(told, None, "Your own reply subject.", *answers, *also),
                "messages": messages_of(told, *answers, *also),
            },
        }
    stem = LIVE.there.removesuffix(".>")
    for fact, kind in FACTS.items():
        name = f"live{kind.__name__}"
        kinds.append(kind)
        messages[kind.__name__] = message(kind, STORED)
        operations[name] = {
            "action": "send",
            "summary": " ".join((kind.__doc__ or "").split()).partition(". ")[0],
            "channel": channel(name, f"{stem}.{{run_id}}.{fact}", "Heard once it is on the log.", kind),
            "messages": messages_of(name, kind),
        }
    kinds.append(TextDelta)
    messages[TextDelta.__name__] = message(TextDelta)
    where = TOKENS.there.replace("*.*", "{run_id}.{call}")
    operations[TOKENS.name] = {
        "action": "send",
        "summary": "Pieces of answers as they are written.",
        "channel": channel(TOKENS.name, where, "Outside the log.", TextDelta),
        "messages": messages_of(TOKENS.name, TextDelta),
    }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:segue:bus",
        "info": {
            "title": "Segue on the bus",
            "version": version(),
            "description": "What an outside system says and hears in its own NATS account. Subjects are those of that "
            "account; whose a request is follows from the account. Questions are requests with a reply; events are "
            "hints, `read` says what is so. See docs/bus.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "bus": {
                "host": "localhost:4222",
                "protocol": "nats",
                "description": "With the user and password, or the nkey, of your account.",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": dict(sorted(messages.items())),
            "schemas": schemas(kinds),
            "securitySchemes": {"user": {"type": "userPassword"}},
        },
    }


def main() -> int:
    text = json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("drifted: docs/reference/asyncapi.json; run python tools/generate_asyncapi.py")
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
