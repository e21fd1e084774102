"""What may be asked of the outside: public addresses over TLS, and networks that were opened."""

import asyncio
import ipaddress

import pytest

from shared.outward import FetchFailed, Forbidden, Outward, is_open

OURS = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_networks_of_our_own_are_not_asked(address: str) -> None:
    assert not is_open(ipaddress.ip_address(address))


def test_public_addresses_are_and_opened_networks_too() -> None:
    assert is_open(ipaddress.ip_address("1.1.1.1"))
    assert is_open(ipaddress.ip_address("2606:4700:4700::1111"))
    assert is_open(ipaddress.ip_address("127.0.0.1"), OURS)
    assert is_open(ipaddress.ip_address("::ffff:127.0.0.1"), OURS)
    assert not is_open(ipaddress.ip_address("1.1.1.1"), OURS, plain=True)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png", "https://127.0.0.1/", "https://[::1]/", "https://user:pw@example.com/", "ftp://x/",
        "file:///etc/passwd", "https://", "https://[::ffff:10.0.0.1]/", "https://x:99999/", "https://" + "a" * 5_000,
        "https://127\u30020\u30020\u30021/", "https://\uff11\uff12\uff17.0.0.1/", "https://\uff4cocalhost/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused_by_their_text(url: str) -> None:
    with pytest.raises(Forbidden):
        Outward().check(url)


@pytest.mark.parametrize("url", ["https://localhost/", "https://2130706433/", "https://0x7f.1/"])
async def test_names_are_looked_up_before_they_are_refused(url: str) -> None:
    """Spellings of loopback that only the resolver understands."""
    outward = Outward()
    with pytest.raises((Forbidden, FetchFailed)):
        await outward.get(url, most_bytes=10, within_s=30)
    await outward.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".com", "a..b", ".a"])
async def test_a_host_that_can_be_no_name_is_a_failure_like_any_other(host: str) -> None:
    outward = Outward()
    with pytest.raises(FetchFailed, match="is no name"):
        await outward.get(f"https://{host}/", most_bytes=10, within_s=30)
    await outward.close()


async def test_an_opened_network_opens_no_other_spelled_differently() -> None:
    """The client would connect to what it normalises a host to, without looking it up."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 1\r\n\r\nx")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outward = Outward((ipaddress.ip_network("10.0.0.0/8"),))
    with pytest.raises((Forbidden, FetchFailed)):
        await outward.get(f"http://127\u30020\u30020\u30021:{port}/", most_bytes=10, within_s=30)
    assert asked == []
    await outward.close()
    server.close()


async def test_bodies_redirects_and_opened_networks() -> None:
    """An opened network is asked over plain http; a body over the bound and a redirect inwards are refused."""
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.readuntil(b"\r\n\r\n"))
        path = said[-1].split()[1]
        if path == b"/nowhere":
            writer.write(b"HTTP/1.1 302 X\r\nlocation: http://[bad/\r\ncontent-length: 0\r\n\r\n")
        elif path == b"/away":
            writer.write(b"HTTP/1.1 302 X\r\nlocation: https://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 X\r\ncontent-type: image/png; a=b\r\ncontent-length: 20\r\n\r\n" + b"x" * 20)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    outward = Outward(OURS)
    found = await outward.get(f"{base}/", most_bytes=20, within_s=30)
    assert (found.data, found.media_type) == (b"x" * 20, "image/png")
    with pytest.raises(FetchFailed, match="larger than 19"):
        await outward.get(f"{base}/", most_bytes=19, within_s=30)
    with pytest.raises(FetchFailed, match="redirects"):
        await outward.get(f"{base}/away", most_bytes=20, within_s=30)
    with pytest.raises(FetchFailed, match="not a URL"):
        await outward.get(f"{base}/nowhere", most_bytes=20, within_s=30, redirects=2)
    with pytest.raises(Forbidden, match=r"169\.254"):
        await outward.get(f"{base}/away", most_bytes=20, within_s=30, redirects=2)
    await outward.close()
    server.close()
