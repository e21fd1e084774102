"""`GET` and `DELETE /session/{id}`"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.gateway import gateway_of
from services.gateway.http.answering import show
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure, SessionAnswer, SessionDeleted, SessionMessage
from shared import subjects
from shared.contracts.events import Session, Turn
from shared.contracts.ids import is_token
from shared.contracts.message import ChatMessage

router = APIRouter(tags=["sessions"])


@router.get(
    "/session/{session_id}",
    summary="Read a conversation",
    response_model=SessionAnswer,
    responses={404: {"model": Failure}},
)
async def read(request: Request, session_id: str) -> Response:
    """Return a conversation's messages, oldest first."""
    session, _ = await gateway_of(request).bus.sessions.get(_key(request, session_id), Session)
    if session is None:
        raise _unknown(session_id)
    messages = [message for turn in session.turns for message in _messages(turn)]
    return show(SessionAnswer(session_id=session_id, created_at=session.created_at, messages=messages))


@router.delete(
    "/session/{session_id}",
    summary="Forget a conversation",
    response_model=SessionDeleted,
    responses={404: {"model": Failure}},
)
async def forget(request: Request, session_id: str) -> Response:
    """Delete a conversation. A request of it that is still running begins it anew when it ends."""
    if not await gateway_of(request).bus.sessions.delete(_key(request, session_id)):
        raise _unknown(session_id)
    return show(SessionDeleted(status="deleted", session_id=session_id))


def _key(request: Request, session_id: str) -> str:
    if not is_token(session_id):
        raise _unknown(session_id)
    return subjects.session_key(who(request).tenant, session_id)


def _unknown(session_id: str) -> Refusal:
    return Refusal(404, f"there is no session {session_id[:80]!r}: it never was, was deleted, or has aged away")


def _messages(turn: Turn) -> list[SessionMessage]:
    said = [(turn.user, turn.asked_at)]
    if turn.assistant is not None:
        said.append((turn.assistant, turn.answered_at))
    return [_message(message, at) for message, at in said]


def _message(message: ChatMessage, at: object) -> SessionMessage:
    text, images = _text_of(message), _images_of(message)
    return SessionMessage.model_validate({"role": message.role, "content": text, "timestamp": at, "images": images})


def _text_of(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if "text" in part)


def _images_of(message: ChatMessage) -> list[str]:
    if isinstance(message.content, str):
        return []
    found = (part.get("image_url") for part in message.content)
    return [str(image["url"]) for image in found if isinstance(image, dict) and "url" in image]
