"""The calls that a category leads to: what the Categorizer AI is shown, what the answering model gets."""

from datetime import UTC, datetime, timedelta

import pytest

from services.categorizer.calls import SHOWN_TO_CATEGORIZER_CHARS, Persona, answer, categorize
from shared.contracts.commands import ChatRequest, ExecuteCall, Spent
from shared.contracts.conversation import Conversation, Parameters
from shared.contracts.events import RunCategorized
from shared.contracts.ids import Category, Lane, Priority, Purpose
from shared.contracts.message import ChatMessage, Run, Usage
from shared.conversation import tokens_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RUN = Run(
    run_id="r1",
    tenant="acme",
    priority=Priority.HIGH,
    session_id="s1",
    born_at=NOW,
    deadline_at=NOW + timedelta(seconds=300),
)


def said(role: str, content: str) -> ChatMessage:
    return ChatMessage.model_validate({"role": role, "content": content})


EXAMPLES = (said("user", "What is 2+2?"), said("assistant", "M"))
JUDGE = Persona("categorizer_ai", "Answer L, M or H.", EXAMPLES, window_tokens=8_000, max_tokens=10)
THINKER = Persona("thinking_ai", "Think.", (), window_tokens=1_000, max_tokens=100)
HISTORY = (said("user", "Who wrote it?"), said("assistant", "Ada did."))


def framed(message: str) -> str:
    return f"Sort this message: L, M or H?\n\n<message>\n{message}\n</message>\n\nWhich letter is it, L, M or H?"


def test_the_categorizer_sees_prompt_examples_and_what_was_said_as_material() -> None:
    """A message that says how to answer it is sorted, not answered; the same goes for the examples."""
    message = "Write a haiku. Reply only with the haiku."
    call = categorize(RUN, ChatRequest(message=message), HISTORY, JUDGE)
    before = "<before>\nUser: Who wrote it?\n\nAssistant: Ada did.\n</before>\n\n"
    assert call.messages == (
        said("system", "Answer L, M or H."),
        said("user", framed("What is 2+2?")),
        said("assistant", "M"),
        said("user", framed(message).replace("<message>", f"{before}<message>")),
    )


def test_categorizing_is_a_decision_on_its_own_lane() -> None:
    call = categorize(RUN, ChatRequest(message="x"), (), JUDGE)
    assert (call.run, call.call, call.role) == (RUN, "categorize", "categorizer_ai")
    assert (call.purpose, call.lane, call.stream) == (Purpose.DECISION, Lane.CONTROL, False)


@pytest.mark.parametrize("length", [SHOWN_TO_CATEGORIZER_CHARS - 1, SHOWN_TO_CATEGORIZER_CHARS])
def test_a_message_up_to_the_bound_is_shown_whole(length: int) -> None:
    call = categorize(RUN, ChatRequest(message="x" * length), (), JUDGE)
    assert call.messages[-1].content == framed("x" * length)


def test_of_a_long_message_head_and_tail_are_shown() -> None:
    message = "HEAD" + "x" * 1_000_000 + "TAIL"
    content = categorize(RUN, ChatRequest(message=message), (), JUDGE).messages[-1].content
    assert isinstance(content, str)
    assert "<message>\nHEADx" in content
    assert "xTAIL\n</message>" in content
    assert "\n[… 996,008 characters left out …]\n" in content
    assert len(content) < SHOWN_TO_CATEGORIZER_CHARS + 50 + len(framed(""))


def test_the_categorizer_sees_only_the_end_of_a_long_session() -> None:
    history = tuple(said(role, f"{n} " + "y" * 396) for n in range(50) for role in ("user", "assistant"))
    shown = str(categorize(RUN, ChatRequest(message="x"), history, JUDGE).messages[-1].content)
    assert f"<before>\nUser: {history[-2].content}\n\nAssistant: {history[-1].content}\n</before>" in shown


def category(letter: Category, role: str) -> RunCategorized:
    spent = Spent(calls=1, cost_usd=0.001, usage=Usage(prompt_tokens=7), simulated=True)
    return RunCategorized(run=RUN, category=letter, role=role, reason="r", context_tokens=3, spent=spent)


def test_the_answer_gets_prompt_session_and_message() -> None:
    fact = category(Category.L, "thinking_ai")
    call = answer(fact, ChatRequest(message="And when?"), HISTORY, THINKER)
    assert call.messages == (said("system", "Think."), *HISTORY, said("user", "And when?"))
    assert (call.run, call.call, call.role, call.category) == (RUN, "answer", "thinking_ai", Category.L)
    assert (call.purpose, call.lane, call.stream) == (Purpose.ANSWER, Lane.TEXT, True)


def test_the_answer_carries_what_was_spent_on_the_category() -> None:
    fact = category(Category.M, "medium_ai")
    assert answer(fact, ChatRequest(message="x"), (), THINKER).spent == fact.spent


def test_images_come_with_the_message() -> None:
    request = ChatRequest(message="what?", images=("https://example.org/a.png", "data:image/png;base64,AA=="))
    (_, message) = answer(category(Category.M, "image_analysis_ai"), request, (), THINKER).messages
    assert message.content == [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]


def test_a_session_gives_way_to_the_models_window_and_the_message_does_not() -> None:
    history = tuple(said(role, "z" * 400) for _ in range(50) for role in ("user", "assistant"))
    request = ChatRequest(message="m" * 2_000)
    call = answer(category(Category.L, "thinking_ai"), request, history, THINKER)
    assert call.messages[-1].content == request.message
    kept = call.messages[1:-1]
    assert 0 < len(kept) < len(history)
    assert kept[0].role == "user"
    assert sum(map(tokens_of, call.messages)) <= 1_000 - 100
    longer = answer(category(Category.L, "thinking_ai"), ChatRequest(message="m" * 9_000), history, THINKER)
    assert longer.messages == (said("system", "Think."), said("user", "m" * 9_000))


def test_the_same_log_gives_the_same_commands() -> None:
    """Commands follow from the log: worked out again after a crash they are the same, byte by byte."""

    def both() -> tuple[ExecuteCall, ExecuteCall]:
        request = ChatRequest(message="And when?")
        asked = categorize(RUN, request, HISTORY, JUDGE)
        return asked, answer(category(Category.M, "medium_ai"), request, HISTORY, THINKER)

    assert [call.encode() for call in both()] == [call.encode() for call in both()]


def carried(role: str | None, *messages: ChatMessage, **said_: object) -> ChatRequest:
    """Return a request whose caller carries the conversation."""
    parameters = Parameters.model_validate(said_)
    conversation = Conversation(model=role or "segue-auto", role=role, messages=messages, parameters=parameters)
    return ChatRequest(message=str(messages[-1].content), conversation=conversation)


FACT = RunCategorized(run=RUN, category=Category.M, reason="x", role="thinking_ai", context_tokens=1)


def test_a_carried_conversation_goes_below_the_roles_prompt() -> None:
    """System messages are kept, behind ours; what the caller says of the call is said of this one."""
    told = (said("system", "Be brief."), *HISTORY, said("user", "And when?"))
    call = answer(FACT, carried(None, *told, temperature=0.1, max_tokens=7, stop=("x",)), (), THINKER)
    assert call.messages == (said("system", "Think."), *told)
    assert (call.temperature, call.max_tokens) == (0.1, 7)
    assert call.parameters is not None
    assert call.parameters.stop == ("x",)


def test_a_role_that_the_caller_chose_and_instructs_is_told_nothing_by_us() -> None:
    told = (said("system", "Be brief."), said("user", "When?"))
    assert answer(FACT, carried("thinking_ai", *told), (), THINKER).messages == told
    assert answer(FACT, carried("thinking_ai", told[1]), (), THINKER).messages == (said("system", "Think."), told[1])


def test_a_carried_conversation_gives_way_before_its_last_question() -> None:
    """The oldest turns go; the question stays, with the calls and results that came after it."""
    old = tuple(said(role, "x" * 2_000) for role in ("user", "assistant") * 3)
    tail = (said("user", "Look"), said("assistant", "I do"), ChatMessage(role="tool", content="seen", tool_call_id="c"))
    call = answer(FACT, carried("thinking_ai", said("system", "Be brief."), *old, *tail), (), THINKER)
    assert call.messages[0] == said("system", "Be brief.")
    assert call.messages[-3:] == tail
    assert len(call.messages) < 2 + len(old) + len(tail)
    assert call.messages[1].role == "user"


def test_a_role_that_makes_images_is_asked_on_its_lane() -> None:
    painter = Persona("imagen", "", (), window_tokens=1_000, max_tokens=100, lane=Lane.IMAGE)
    call = answer(FACT, carried("imagen", said("user", "A dog"), extra={"aspect_ratio": "1:1"}), (), painter)
    assert (call.lane, call.stream, call.settings) == (Lane.IMAGE, False, {"aspect_ratio": "1:1"})
