"""The embedded nats-server: ready when `start` returns, survives kills, and says what is wrong."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NoStreamResponseError

from shared.bus.server import NatsCluster, NatsServer, NatsServerError, NatsServerFailed, PortTaken, free_port
from tests.conftest import eventually


async def test_jetstream_can_be_used_when_start_returns(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    began = time.monotonic()
    await server.start()
    print(f"ready after {(time.monotonic() - began) * 1000:.0f} ms")
    try:
        connection = await nats.connect(server.url)
        js = connection.jetstream()
        await js.add_stream(name="S", subjects=["s.>"])
        assert (await js.publish("s.1", b"x")).seq == 1
        info = await js.account_info()
        assert info.limits.max_storage == -1  # of the account; the server's own limit is in its configuration
        await connection.close()
    finally:
        await server.stop()
    assert not server.running
    assert server.pid is None


async def test_an_acknowledged_message_survives_kill_and_restart(own_nats_server: NatsServer) -> None:
    """SIGKILL, then start: same port, same store, the message is there."""
    connection = await nats.connect(own_nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.02)
    js = connection.jetstream()
    await js.add_stream(name="S", subjects=["s.>"])
    await js.publish("s.1", b"kept")
    port, pid = own_nats_server.port, own_nats_server.pid
    own_nats_server.kill()
    assert own_nats_server.exit_code == -signal.SIGKILL
    await own_nats_server.start()
    assert own_nats_server.port == port
    assert own_nats_server.pid != pid
    await eventually(lambda: connection.is_connected and connection.stats["reconnects"] > 0)
    assert (await js.get_msg("S", 1)).data == b"kept"
    await connection.close()


async def test_stop_is_clean_and_restart_keeps_the_store(own_nats_server: NatsServer) -> None:
    connection = await nats.connect(own_nats_server.url)
    await connection.jetstream().add_stream(name="S", subjects=["s.>"])
    await connection.close()
    await own_nats_server.restart()
    connection = await nats.connect(own_nats_server.url)
    assert (await connection.jetstream().stream_info("S")).config.name == "S"
    await connection.close()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1") as caught:
            await NatsServer(tmp_path, port).start()
    assert caught.value.port == port


async def test_a_taken_monitor_port_is_named_too(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} .* for monitoring"):
            await NatsServer(tmp_path, monitor_port=port).start()


async def test_a_second_start_is_refused(own_nats_server: NatsServer) -> None:
    with pytest.raises(NatsServerError, match="already running"):
        await own_nats_server.start()


async def test_a_wrong_configuration_fails_with_the_servers_words(tmp_path: Path) -> None:
    with pytest.raises(NatsServerFailed, match="nonsense"):
        await NatsServer(tmp_path, settings={"nonsense": True}).start()


async def test_a_payload_over_one_megabyte_is_refused(client: Client) -> None:
    assert client.max_payload == 1 << 20


async def test_what_jetstream_may_store_is_limited(tmp_path: Path) -> None:
    """A stream that reserves more than `max_file_store` is refused."""
    server = NatsServer(tmp_path, max_file_store=1 << 20)
    await server.start()
    connection = await nats.connect(server.url)
    try:
        with pytest.raises(APIError, match="insufficient storage"):
            await connection.jetstream().add_stream(StreamConfig(name="S", subjects=["s"], max_bytes=1 << 21))
    finally:
        await connection.close()
        await server.stop()


async def test_the_monitor_answers(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, monitor_port=free_port())
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.monitor_port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["status"] == "ok"
    finally:
        await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a child with its parent only on Linux")
async def test_the_server_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """A parent killed with SIGKILL leaves no server behind on the port."""
    code = (
        "import asyncio, sys, time; from pathlib import Path; from shared.bus.server import NatsServer\n"
        f"s = NatsServer(Path({str(tmp_path)!r}), {free_port()})\n"
        "asyncio.run(s.start()); print(s.pid, flush=True); time.sleep(60)"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert _alive(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not _alive(pid), within_s=30)


@pytest.mark.cluster
async def test_a_cluster_stores_on_three_replicas_when_start_returns(nats_cluster: NatsCluster) -> None:
    connection = await nats.connect(nats_cluster.urls)
    js = connection.jetstream()
    stream = await js.add_stream(StreamConfig(name="THREE", subjects=["three"], num_replicas=3))
    assert stream.cluster is not None
    assert nats_cluster.named(stream.cluster.leader or "").running
    async with asyncio.timeout(30):  # this client's server may hear of the stream's subject after the stream is there
        while True:
            with contextlib.suppress(NoStreamResponseError):
                assert (await js.publish("three", b"x")).seq == 1
                break
            await asyncio.sleep(0.02)
    await js.delete_stream("THREE")
    await connection.close()


def _alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return False
    return state != "Z"
