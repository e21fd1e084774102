"""What `POST /ag-ui` takes: the AG-UI protocol's `RunAgentInput`, as far as it is for us. The rest is ignored."""

import hashlib
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from services.gateway.http.errors import Refusal
from services.gateway.http.models import MOST_IMAGES, Body
from shared.contracts.ids import SessionId, is_token
from shared.workflows.validation import Problem

Name = Annotated[str, Field(min_length=1, max_length=255)]


class AgUiContext(Body):
    """Something that the application knows and says along."""

    description: str
    value: str


class AgUiInput(Body):
    """`RunAgentInput`."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    thread_id: Name = Field(description="The conversation: one of our sessions.")
    run_id: Name = Field(description="The client's name for the run; sent again it is the same run.")
    messages: list[dict[str, Any]] = Field(description="The last one is the user's, and is answered.")
    context: list[AgUiContext] | None = None
    parent_run_id: str | None = None


def session_of_thread(thread: str) -> SessionId:
    """Return the session that a thread is: of the same name where that can be one."""
    return thread if is_token(thread) else f"t{hashlib.sha256(thread.encode()).hexdigest()[:31]}"


def key_of_run(asked: AgUiInput) -> str:
    """Return the idempotency key that a client's run is: the same run of the same thread is asked once."""
    named = f"{asked.thread_id}\x00{asked.run_id}"
    return f"ag-ui {hashlib.sha256(named.encode()).hexdigest()}"


def asked_in(asked: AgUiInput) -> tuple[str, tuple[str, ...]]:
    """Return the text and the images of the message to answer. Raises `Refusal`: there is none, or not of that kind."""
    place = len(asked.messages) - 1
    last = asked.messages[place] if asked.messages else {}
    if last.get("role") != "user":
        told = "the last message has to be the user's: what it says is answered"
        raise _problem(f"$.messages[{place}].role" if asked.messages else "$.messages", "no_question", told)
    content = last.get("content")
    texts, images = [], []
    for number, part in enumerate(content if isinstance(content, list) else [{"type": "text", "text": content}]):
        at = f"$.messages[{place}].content[{number}]"
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image", "source": {"type": "url", "value": str(url)}}:
                images.append(url)
            case {"type": "image", "source": {"type": "data", "value": str(data), "mimeType": str(kind)}}:
                images.append(f"data:{kind};base64,{data}")
            case _:
                raise _problem(at, "not_taken", "a part is a text, or an image with a url or data source")
    text = "\n\n".join(texts)
    if not text.strip():
        raise _problem(f"$.messages[{place}].content", "empty", "the message is empty; say what you want to know")
    if len(images) > MOST_IMAGES:
        raise _problem(f"$.messages[{place}].content", "too_many", f"at most {MOST_IMAGES} images are looked at")
    known = [f"- {one.description}: {one.value}" for one in asked.context or ()]
    return "\n".join([text, "", "Context:", *known]) if known else text, tuple(images)


def _problem(path: str, code: str, message: str) -> Refusal:
    return Refusal(422, (Problem(path, code, message),))
