"""Asks a service on this machine whether it is ready."""

import asyncio
import contextlib
import json

ANSWER_WITHIN_S = 3.0


async def problem(host: str, port: int, path: str = "/readyz") -> str | None:
    """Return why a service is not ready, None when it is."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            status, body = await _get(host, port, path)
    except OSError:
        return "does not listen yet"
    except (TimeoutError, ValueError, EOFError):
        return f"did not answer {path} in time"
    return None if status == 200 else _reason(status, body)


def _reason(status: int, body: bytes) -> str:
    with contextlib.suppress(ValueError):
        said = json.loads(body)
        if isinstance(said, dict) and said.get("problem"):
            return str(said["problem"])
    return f"answers {status}"


async def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(maxsplit=2)[1]), body
    except IndexError:
        raise EOFError from None
    finally:
        writer.close()
