"""`segue ask` and `segue chat` against a gateway that is only its answers."""

import io
import json

import pytest
from rich.console import Console

from cli.ask import ask
from cli.chat import Read, chat
from cli.progress import Progress, footer
from client import Event, RequestFailed, Segue, Unreachable, WrongAddress
from client.events import events
from shared.bus.server import free_port
from tests.cli.gateway import Gateway


def screen(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=200, force_terminal=terminal, color_system=None, _environ={"TERM": "xterm"}), out


def test_nobody_watches_so_only_the_answer_is_printed(client: Segue, gateway: Gateway) -> None:
    console, out = screen(terminal=False)
    ask(client, {"message": "[bold]really?[/bold]\tyes", "priority": "high"}, console)
    assert out.getvalue() == "[simulated] [bold]really?[/bold]\tyes \n"
    assert gateway.asked == [{"path": "/chat", "message": "[bold]really?[/bold]\tyes", "priority": "high"}]


def test_json_is_the_whole_answer(client: Segue) -> None:
    console, out = screen(terminal=True)
    answer = ask(client, {"message": "ünï"}, console, as_json=True)
    assert json.loads(out.getvalue()) == answer
    assert "ünï" in out.getvalue()


def test_on_a_terminal_the_answer_is_followed_by_what_it_took(client: Segue, gateway: Gateway) -> None:
    console, out = screen(terminal=True)
    ask(client, {"message": "hello"}, console)
    assert gateway.asked[0]["stream"] is True
    last = out.getvalue().rstrip().splitlines()[-1]
    assert last.endswith("M · m · simulated · 2 calls · 0.000123 USD · 0.50 s · session s1 · run r1")


def test_on_a_terminal_a_gateway_that_does_not_stream_will_do(client: Segue, gateway: Gateway) -> None:
    gateway.streams = False
    console, out = screen(terminal=True)
    ask(client, {"message": "hello"}, console)
    assert "[simulated] hello" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failure_has_its_detail_and_its_run(client: Segue, gateway: Gateway, terminal: bool) -> None:
    gateway.detail = "the model is asleep; wake it"
    console, _ = screen(terminal=terminal)
    with pytest.raises(RequestFailed, match="the model is asleep; wake it") as raised:
        ask(client, {"message": "hello"}, console)
    assert (raised.value.status, raised.value.run_id) == (502, "r1")


def test_every_problem_of_a_wrong_request_is_a_line(client: Segue) -> None:
    console, _ = screen(terminal=False)
    with pytest.raises(RequestFailed, match=r"^\$\.message: say something$"):
        ask(client, {"message": " "}, console)


def test_a_stream_that_is_cut_is_a_failure_that_says_so(client: Segue, gateway: Gateway) -> None:
    gateway.broken = lambda method, path, body: {"events": body["events"][:3]} if method == "STREAM" else body
    console, _ = screen(terminal=True)
    with pytest.raises(RequestFailed, match="ended without an answer") as raised:
        ask(client, {"message": "hello"}, console)
    assert raised.value.run_id == "r1"


def test_nobody_at_the_address_is_said_with_how_to_start_one() -> None:
    with (
        Segue(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(Unreachable, match=r"no Segue answers at http://127.0.0.1:\d+: start one with ./start.sh"),
    ):
        client.get("/health")


@pytest.mark.parametrize("wrong", ["ftp://x", "http://x:y"])
def test_an_address_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(WrongAddress, match="is no address"), Segue(wrong) as client:
        client.get("/health")


def test_events_are_read_as_the_standard_has_them() -> None:
    lines = [": hello", "event: token", 'data: {"a":', "data:1}", "", "", 'data: {"b": 2}', "", "event: cut"]
    assert list(events(lines)) == [Event("token", {"a": 1}), Event("message", {"b": 2})]


def test_progress_forgets_the_tokens_of_an_attempt_that_begins_again() -> None:
    progress = Progress(clock=iter([0.0, 1.5]).__next__)
    for name, data in (
        ("accepted", {"run_id": "r9"}),
        ("category", {"category": "H"}),
        ("acknowledgement", {"text": "At once."}),
        ("token", {"call": "a", "offset": 0, "text": "wrong"}),
        ("restart", {"call": "a"}),
        ("token", {"call": "a", "offset": 0, "text": "ri"}),
        ("token", {"call": "b", "offset": 0, "text": "other"}),
        ("token", {"call": "a", "offset": 2, "text": "ght"}),
        ("token", {"call": "a", "offset": 2, "text": "ght"}),
        ("later", {"what": "is not known yet"}),
    ):
        progress.take(Event(name, data))
    assert progress.texts == {"a": "right", "b": "other"}
    assert progress.state() == "H, a workflow of several models · 1.5 s"
    with pytest.raises(RequestFailed, match="without an answer"):
        progress.result()
    progress.take(Event("error", {"status": 504, "detail": "too late"}))
    with pytest.raises(RequestFailed, match="too late") as raised:
        progress.result()
    assert (raised.value.status, raised.value.run_id) == (504, "r9")


def test_a_footer_says_when_the_cost_is_not_known() -> None:
    answer = {"category": "L", "model_used": "m", "calls": 1, "cost_usd": 0.5, "cost_known": False}
    assert footer(answer) == "L · m · 1 call · cost not known · session None · run None"


def typed(*lines: str) -> Read:
    said = iter(lines)
    return lambda: next(said, None)


def test_a_conversation_is_kept_until_a_new_one(client: Segue, gateway: Gateway) -> None:
    console, out = screen(terminal=False)
    said = typed("first", "", "second", "new", "third", "stats", "models", "quit", "never asked")
    assert chat(client, console, said) == 0
    sessions = [(one["message"], one.get("session_id")) for one in gateway.asked]
    assert sessions == [("first", None), ("second", "s1"), ("third", None)]
    lines = out.getvalue().splitlines()
    assert "[simulated] second first [simulated] first " in lines
    assert "active_sessions\t1" in lines
    assert "fast_ai\tm\tanswers" in lines


def test_a_conversation_goes_on_after_a_failure(client: Segue, gateway: Gateway) -> None:
    console, out = screen(terminal=False)
    gateway.detail = "no model"
    assert chat(client, console, typed("one", "two")) == 2
    assert out.getvalue() == "no model\nno model\n"


def test_nobody_there_is_found_out_before_anything_is_typed() -> None:
    console, _ = screen(terminal=False)
    with Segue(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unreachable):
        chat(client, console, lambda: pytest.fail("asked for a question"))
