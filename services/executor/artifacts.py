"""Images and videos: what models made goes into the object store, what they are to look at comes from there or the web.

A name is made of the attempt, so that a successor who fetches the same job's result writes the same artifact.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from services.executor.providers import Answered, Failed, Media
from services.executor.taxonomy import ARTIFACT_GONE, IMAGE_UNUSABLE
from shared import data_urls
from shared.bus.connection import Bus
from shared.config.providers import OPENROUTER, Route
from shared.contracts.commands import ExecuteCall
from shared.contracts.events import AttemptStarted
from shared.contracts.message import ARTIFACT_PATH, Artifact
from shared.outward import FetchFailed, Forbidden, Outward

MOST_IMAGE_BYTES: Final = 20 * 1024 * 1024
MOST_IMAGES: Final = 16
"""In one call."""
FETCH_WITHIN_S: Final = 20.0


class Unusable(Exception):
    """An image that a call is to look at cannot be had."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Stores and finds them."""

    bus: Bus
    outward: Outward
    kept: timedelta

    async def keep(
        self, started: AttemptStarted, purpose: str, answer: Answered
    ) -> tuple[Answered, tuple[Artifact, ...]]:
        """Store what an attempt made. Its text is their paths, a line each, which is what later
        tasks refer to; what the model says beside an image is left out."""
        made = []
        for number, media in enumerate(answer.media):
            made.append(await self._keep(started, purpose, number, media))
        return replace(answer, text="\n".join(one.path for one in made), media=()), tuple(made)

    async def _keep(self, started: AttemptStarted, purpose: str, number: int, media: Media) -> Artifact:
        run = started.run
        told = "\n".join((run.tenant, run.run_id, purpose, started.call, str(started.attempt), str(number)))
        name = hashlib.sha256(told.encode()).hexdigest()[:32]
        there = await self.bus.artifacts.info(f"{run.tenant}/{name}")
        stored_at = there.stored_at if there is not None and there.size == len(media.data) else None
        if stored_at is None:
            stored_at = await self.bus.artifacts.store(
                f"{run.tenant}/{name}", media.data, {"media_type": media.media_type, "run": run.run_id}
            )
        return Artifact(id=name, media_type=media.media_type, bytes=len(media.data), expires_at=stored_at + self.kept)

    async def resolved(self, command: ExecuteCall, route: Route) -> ExecuteCall:
        """Return a call whose images a provider can look at: our own artifacts, and addresses, as data URLs.

        OpenRouter fetches addresses itself; whatever else is asked may stand inside our networks, and must not be made
        to fetch there. Raises `Unusable`.
        """
        if all(isinstance(message.content, str) for message in command.messages):
            return command
        left = MOST_IMAGES
        messages = []
        for message in command.messages:
            if isinstance(message.content, str):
                messages.append(message)
                continue
            parts: list[dict[str, object]] = []
            for part in message.content:
                image = part.get("image_url")
                if not isinstance(image, dict):
                    parts.append(part)
                    continue
                if (left := left - 1) < 0:
                    raise _unusable(f"a call can look at {MOST_IMAGES} images at the most")
                url = await self._url(str(image.get("url") or ""), command.run.tenant, route)
                parts.append({**part, "image_url": {**image, "url": url}})
            messages.append(message.model_copy(update={"content": parts}))
        return command.model_copy(update={"messages": tuple(messages)})

    async def _url(self, url: str, tenant: str, route: Route) -> str:
        url = url.strip()
        if url.startswith("data:"):
            return _checked(url)
        if url.startswith(ARTIFACT_PATH) and url != ARTIFACT_PATH:  # with several, the first
            return await self._own(url.split(maxsplit=1)[0].removeprefix(ARTIFACT_PATH), tenant)
        if not url.startswith(("http://", "https://")):
            raise _unusable(
                f"{url[:80]!r} is no image: an http(s) URL, a data URL, or the {ARTIFACT_PATH}… of an earlier task is"
            )
        if route.protocol == OPENROUTER or route.simulated:
            return url
        try:
            found = await self.outward.get(url, most_bytes=MOST_IMAGE_BYTES, within_s=FETCH_WITHIN_S, redirects=3)
        except Forbidden as error:
            raise _unusable(f"the image at {url[:200]} is not fetched: {error}") from error
        except FetchFailed as error:
            raise _unusable(f"the image at {url[:200]} cannot be fetched: {error}") from error
        if not found.media_type.startswith("image/"):
            raise _unusable(f"what is at {url[:200]} is {found.media_type or 'of no type'}, not an image")
        return data_urls.joined(found.media_type, found.data)

    async def _own(self, name: str, tenant: str) -> str:
        found = await self.bus.artifacts.load(f"{tenant}/{name}")
        if found is None:
            message = f"the artifact {name[:64]!r} is not there (any more): see orchestration.artifactRetentionDays"
            raise Unusable(Failed(ARTIFACT_GONE, message))
        info, data = found
        media_type = info.metadata.get("media_type", "")
        if not media_type.startswith("image/"):
            raise _unusable(f"the artifact {name} is {media_type}, not an image")
        return data_urls.joined(media_type, data)


def _checked(url: str) -> str:
    found = data_urls.split(url)
    if found is None or not found[0].startswith("image/"):
        raise _unusable("a data URL is data:image/…;base64,…")
    if len(found[1]) * 3 // 4 > MOST_IMAGE_BYTES:
        raise _unusable(f"an image is larger than {MOST_IMAGE_BYTES >> 20} MB")
    return url


def _unusable(message: str) -> Unusable:
    return Unusable(Failed(IMAGE_UNUSABLE, message))
