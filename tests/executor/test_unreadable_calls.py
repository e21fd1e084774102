"""Commands that cannot be read: the call is settled with the reason, and what came is buried."""

import json

import pytest
from nats.aio.msg import Msg

from shared import subjects
from shared.contracts.commands import ChatRequest
from shared.contracts.events import RunAccepted
from tests.conftest import eventually
from tests.executor.conftest import TENANT, Begin, World, call


async def buried(world: World) -> Msg:
    """Wait for the dead letter and return it."""
    jetstream = world.bus.client.jetstream()

    async def there() -> bool:
        return (await jetstream.stream_info("DEAD")).state.messages >= 1

    await eventually(there)
    subscription = await jetstream.subscribe(subjects.dead("executor"), ordered_consumer=True)
    return await subscription.next_msg(timeout=15)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"v": 99}, "version 99"), ({"messages": "none"}, "messages"), ({"role": None}, "role")]
)
async def test_a_command_that_cannot_be_read_is_settled_and_buried(
    begin: Begin, wrong: dict[str, object], said: str
) -> None:
    """The run's call ends as failed, with the reason, so that whoever waits for it goes on."""
    world = await begin()
    command = call()
    body = command.model_dump(mode="json") | wrong
    await world.bus.jetstream.publish(world.subject(command), json.dumps(body).encode())
    settled = await world.settled(command)
    assert settled.fault is not None
    assert (settled.outcome, settled.fault.code) == ("failed", "unreadable_command")
    assert said in settled.fault.message
    letter = await buried(world)
    assert letter.headers is not None
    assert letter.headers["Segue-Subject"] == world.subject(command)
    assert said in letter.headers["Segue-Reason"]
    await world.emptied()


async def test_garbage_about_a_known_run_ends_its_call(begin: Begin) -> None:
    """Nothing in the body can be read; the subject and the log say whose it is."""
    world = await begin()
    command = call()
    accepted = RunAccepted(run=command.run, request=ChatRequest(message="hi"), by="categorizer")
    await world.write(subjects.events(TENANT, command.run.run_id).accepted, accepted)
    await world.bus.jetstream.publish(world.subject(command), b"\x00 not json")
    settled = await world.settled(command)
    assert settled.run == command.run
    assert settled.fault is not None
    assert settled.fault.code == "unreadable_command"
    await buried(world)


async def test_garbage_about_nobody_is_only_buried(begin: Begin) -> None:
    world = await begin()
    await world.bus.jetstream.publish(world.subject(call()), b"[1, 2")
    assert (await buried(world)).data == b"[1, 2"
    assert world.provider.seen == []


async def test_a_command_for_another_call_than_its_subject_says_is_refused(begin: Begin) -> None:
    """Else one run's command could buy for another."""
    world = await begin()
    command, other = call(), call()
    await world.bus.jetstream.publish(world.subject(other), command.encode())
    letter = await buried(world)
    assert letter.headers is not None
    assert "another call than its subject" in letter.headers["Segue-Reason"]
    assert world.provider.seen == []
