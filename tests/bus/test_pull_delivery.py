"""What is read from the wire: the reply subject of a message in both forms, and what a status means."""

from datetime import UTC, datetime

import pytest
from nats.js.api import ConsumerConfig

from shared.bus.delivery import Delivery, Source, parse
from shared.bus.intake import Answer, read_status

SHORT = "$JS.ACK.CALLS.executor-text-high.3.77.90.1795451808408715010.12"
LONG = "$JS.ACK.hub.A2B4.CALLS.executor-text-high.3.77.90.1795451808408715010.12"


@pytest.mark.parametrize("reply", [SHORT, LONG, f"{LONG}.r4nd0m", LONG.replace(".hub.", "._.")])
def test_both_forms_of_the_reply_subject_say_the_same(reply: str) -> None:
    delivery = parse("segue.call.text", reply, b"{}", {"a": "b"}, "high")
    assert delivery == Delivery(
        subject="segue.call.text",
        data=b"{}",
        headers={"a": "b"},
        source="high",
        stream="CALLS",
        stream_seq=77,
        delivered=3,
        pending=12,
        stored_ns=1795451808408715010,
    )
    assert delivery.stored_at == datetime.fromtimestamp(1795451808.408715, UTC)


@pytest.mark.parametrize(
    "reply", ["_INBOX.x.1", "a.b.c.d.e.f.g.h.i", "$JS.ACK.CALLS.executor.1", "", "$JS.FC.S.c.1.2.3.4.5"]
)
def test_what_jetstream_did_not_send_is_not_a_delivery(reply: str) -> None:
    assert parse("s", reply, b"", None, "high") is None


@pytest.mark.parametrize(
    ("code", "description", "answer"),
    [
        ("100", "Idle Heartbeat", Answer.ALIVE),
        ("404", "No Messages", Answer.EMPTY),
        ("408", "Request Timeout", Answer.EMPTY),
        ("408", "Requests Pending", Answer.EMPTY),
        ("409", "Batch Completed", Answer.EMPTY),
        ("409", "Consumer Deleted", Answer.GONE),
        ("503", "", Answer.GONE),
        ("409", "Leadership Change", Answer.MOVED),
        ("409", "Server Shutdown", Answer.MOVED),
        ("409", "Exceeded MaxWaiting", Answer.REFUSED),
        ("409", "Exceeded MaxRequestBatch of 3", Answer.REFUSED),
        ("409", "Exceeded MaxRequestExpires of 1s", Answer.REFUSED),
        ("400", "Bad Request - heartbeat value too large", Answer.REFUSED),
        ("999", "something new", Answer.REFUSED),
    ],
)
def test_every_status_means_one_thing(code: str, description: str, answer: Answer) -> None:
    assert read_status(code, description) is answer


def test_a_source_without_a_durable_name_is_refused() -> None:
    with pytest.raises(ValueError, match="source 'high' of stream CALLS: its consumer has no durable_name"):
        _ = Source("CALLS", ConsumerConfig(), name="high").durable
