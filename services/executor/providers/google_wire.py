"""Google's Gemini API as bytes: what is sent, and what an answer, a stream or an operation means. Pure.

Sources: Google "Generate content", "Imagen", "Veo" (Gemini API, v1beta).
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.executor.providers import Answered, Asked, Failed, Media
from services.executor.providers.amounts import MOST_TOKENS, amount, shown, word
from services.executor.providers.failures import read_fault
from services.executor.providers.google_asking import call_parts, called, functions, generation, result_part
from services.executor.providers.objects import object_in, read_object
from services.executor.providers.openai_wire import conclude, trimmed
from services.executor.taxonomy import CUT, EMPTY, MALFORMED, PROVIDER_ERROR, SAFETY, Verdict
from shared.contracts.message import ChatMessage, ToolCall, Usage
from shared.data_urls import split

_HARMS: Final = (
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
)
_FILTERED: Final = frozenset(
    {
        "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE",
        "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    }
)  # fmt: skip
_OPERATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_FINISHED: Final = {"STOP": "stop", "MAX_TOKENS": "length"}
_IMAGE_SETTINGS: Final = {"aspect_ratio": "aspectRatio", "image_size": "imageSize"}
_IMAGEN_SETTINGS: Final = {**_IMAGE_SETTINGS, "num_images": "sampleCount", "person_generation": "personGeneration"}
_VEO_SETTINGS: Final = {
    "aspect_ratio": "aspectRatio",
    "resolution": "resolution",
    "duration": "durationSeconds",
    "duration_seconds": "durationSeconds",
    "negative_prompt": "negativePrompt",
    "person_generation": "personGeneration",
    "seed": "seed",
}


def content_fields(
    asked: Asked, parameters: Mapping[str, Any], *, images: bool, omit: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the body of `generateContent`. `omit`: fields of `generationConfig` that the model has refused."""
    call = asked.call
    said = {**parameters, **call.settings}
    system: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    for message in trimmed(call.messages, asked.trims):
        parts = _parts(message)
        if message.role == "system":
            system += parts
        elif message.role == "tool":
            contents.append({"role": "user", "parts": [result_part(message, _text(message), call.messages)]})
        elif message.tool_calls:
            said_too = [part for part in parts if part.get("text") != ""]
            contents.append({"role": "model", "parts": [*said_too, *call_parts(message)]})
        else:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
    config: dict[str, Any] = {}
    for name, theirs in (("temperature", "temperature"), ("max_tokens", "maxOutputTokens"), ("top_p", "topP")):
        value = getattr(call, name)
        if (value if value is not None else said.get(name)) is not None:
            config[theirs] = value if value is not None else said[name]
    if "top_k" in said:
        config["topK"] = said["top_k"]
    if asked.halvings and isinstance(config.get("maxOutputTokens"), int):
        config["maxOutputTokens"] = max(1, config["maxOutputTokens"] >> asked.halvings)
    if call.parameters is not None:
        config.update(generation(call.parameters))
    if call.response_schema is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = call.response_schema
    if images:
        config["responseModalities"] = ["TEXT", "IMAGE"]
        if shape := _renamed(said, _IMAGE_SETTINGS):
            config["imageConfig"] = shape
    fields: dict[str, Any] = {"contents": contents}
    if call.parameters is not None:
        fields.update(functions(call.parameters))
    if system:
        fields["systemInstruction"] = {"parts": system}
    if config := {name: value for name, value in config.items() if name not in omit}:
        fields["generationConfig"] = config
    if isinstance(threshold := said.get("safety_filter"), str):
        fields["safetySettings"] = [{"category": harm, "threshold": threshold.upper()} for harm in _HARMS]
    return fields


def imagen_fields(asked: Asked, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of `predict`, as Imagen takes it."""
    said = {**parameters, **asked.call.settings}
    wanted = _renamed(said, _IMAGEN_SETTINGS)
    wanted.setdefault("sampleCount", 1)
    return {"instances": [{"prompt": prompt_of(asked)}], "parameters": wanted}


def veo_fields(asked: Asked, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of `predictLongRunning`, as Veo takes it; an image in the message is its first frame."""
    said = {**parameters, **asked.call.settings}
    instance: dict[str, Any] = {"prompt": prompt_of(asked)}
    for part in _parts(asked.call.messages[-1]):
        if (data := part.get("inlineData")) is not None:
            instance["image"] = {"bytesBase64Encoded": data["data"], "mimeType": data["mimeType"]}
    wanted = _renamed(said, _VEO_SETTINGS)
    if said.get("generate_audio") is False:  # with audio is how it is made
        wanted["generateAudio"] = False
    return {"instances": [instance], "parameters": wanted}


def prompt_of(asked: Asked) -> str:
    """Return what is asked as one text, for models that know no conversation: the role's prompt, then the message."""
    messages = asked.call.messages
    texts = [_text(one) for one in messages if one.role == "system"] + [_text(messages[-1])]
    return "\n\n".join(text for text in texts if text)


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if isinstance(part.get("text"), str))


def _parts(message: ChatMessage) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"text": message.content}]
    parts: list[dict[str, Any]] = []
    for part in message.content:
        image = part.get("image_url")
        if isinstance(part.get("text"), str):
            parts.append({"text": part["text"]})
        elif isinstance(image, dict) and (data := split(str(image.get("url")))) is not None:
            parts.append({"inlineData": {"mimeType": data[0], "data": data[1]}})
    return parts


def _renamed(said: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {theirs: said[ours] for ours, theirs in names.items() if said.get(ours) is not None}


@dataclass(slots=True)
class ContentReader:
    """One answer of `generateContent`, whole or in the pieces of a stream."""

    parts: list[str] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    failed: Failed | None = None
    finished: str | None = None
    _said: str = ""
    _calls: list[ToolCall] = field(default_factory=list)
    _model: str | None = None
    _usage: Usage = field(default_factory=Usage)
    _counted: bool = False
    _blocked: str | None = None

    def take(self, event: bytes, now_s: float) -> str:
        """Return the text that a piece brings."""
        body = read_object(event, in_list=True)
        if isinstance(body, Failed):
            self._fail(body)
            return ""
        if isinstance(body.get("usageMetadata"), dict):
            self._usage, self._counted = usage_of(body["usageMetadata"]), True
        self._model = word(body.get("modelVersion")) or self._model
        if body.get("error"):
            self._fail(read_fault(200, body["error"], now_s))
            return ""
        feedback = body.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            self._blocked = word(feedback["blockReason"])
        candidates = body.get("candidates")
        first = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(first, dict):
            return ""
        self.finished = word(first.get("finishReason")) or self.finished
        self._said = word(first.get("finishMessage")) or self._said
        content = first.get("content")
        return "".join(self._piece(part) for part in _list(content.get("parts") if isinstance(content, dict) else None))

    def _piece(self, part: Mapping[str, Any]) -> str:
        data = part.get("inlineData") or part.get("inline_data")
        if isinstance(data, dict):
            made = media_of(data.get("data"), data.get("mimeType") or data.get("mime_type"))
            if made is None:
                self._fail(Failed(MALFORMED, "an image of the answer is not base64", 200, cost_usd=None))
            else:
                self.media.append(made)
        if (call := called(part, len(self._calls))) is not None:
            self._calls.append(call)
        text = part.get("text")
        if not isinstance(text, str) or part.get("thought") is True:
            return ""
        self.parts.append(text)
        return text

    def _fail(self, failed: Failed) -> None:
        self.failed = self.failed or self._failed(failed.verdict, failed.message, failed)

    def _failed(self, verdict: Verdict, message: str, like: Failed | None = None) -> Failed:
        nothing_sent = not self.parts and like is not None and like.cost_usd == 0.0
        # Every piece counts what there is up to it: of an answer that broke off, less than is charged for.
        whole = self.finished is not None or self._blocked is not None
        return Failed(
            verdict,
            message,
            like.status if like is not None else 200,
            like.retry_after_s if like is not None else None,
            usage=self._usage if whole else Usage(),
            cost_usd=None if self._counted or not nothing_sent else 0.0,
            text_sent=bool(self.parts),
        )

    def conclude(self) -> Answered | Failed:
        """Return what the answer came to, once it is there."""
        if self.failed is not None:
            return self.failed
        text = "".join(self.parts)
        if self._blocked is not None:
            return self._failed(SAFETY, f"Google blocked the prompt ({self._blocked}); ask for something else")
        if self.finished in _FILTERED:
            why = f": {self._said}" if self._said else ""
            return self._failed(SAFETY, f"Google's filter stopped the answer ({self.finished}){why}")
        if self.finished is None:
            return self._failed(CUT, f"the answer was cut after {len(text)} characters: no finishReason came")
        if self.media:
            usage = self._usage.model_copy(update={"images": len(self.media)})
            return Answered(text, _FINISHED.get(self.finished, "stop"), self._model, usage, media=tuple(self.media))
        if self.finished not in _FINISHED:
            return self._failed(PROVIDER_ERROR, f"Google ended the answer with {self.finished} {self._said}".rstrip())
        return conclude(
            text,
            refusal="",
            finish_reason=_FINISHED[self.finished],
            model=self._model,
            usage=self._usage,
            cost_usd=None,
            tool_calls=tuple(self._calls),
        )

    def broken(self, verdict: Verdict, message: str) -> Failed:
        """Return the failure of a stream that something else ended."""
        return self._failed(verdict, message)


def read_predictions(data: bytes, now_s: float) -> Answered | Failed:
    """Return what a 200 of Imagen's `predict` says."""
    body = object_in(data)
    if body is None:
        return Failed(MALFORMED, f"the answer is not a JSON object: {shown(data)}", 200, cost_usd=None)
    if body.get("error"):
        return read_fault(200, body["error"], now_s, cost_usd=None)
    made, filtered = list[Media](), list[str]()
    for one in _list(body.get("predictions")):
        if (reason := word(one.get("raiFilteredReason"))) is not None:
            filtered.append(reason)
            continue
        image = media_of(one.get("bytesBase64Encoded"), one.get("mimeType"))
        if image is None:
            return Failed(MALFORMED, "an image of the answer is not base64", 200, cost_usd=None)
        made.append(image)
    if made:
        return Answered("", "stop", usage=Usage(images=len(made)), media=tuple(made))
    if filtered:
        return Failed(SAFETY, f"Google's filter kept every image back: {filtered[0]}", 200)
    return Failed(EMPTY, "the answer has no images; Google may have filtered them without saying so", 200)


def read_operation_name(data: bytes) -> str | Failed:
    """Return what the operation is called that `predictLongRunning` began."""
    body = object_in(data)
    name = word((body or {}).get("name"))
    if name is None or _OPERATION.fullmatch(name) is None or ".." in name:
        return Failed(MALFORMED, f"the answer names no operation: {shown(data)}", 200, cost_usd=None)
    return name


def read_operation(data: bytes, now_s: float) -> str | Media | Failed | None:
    """Return an operation's video, or the address that it is at; None while it is not done."""
    body = object_in(data)
    if body is None:
        return Failed(MALFORMED, f"the operation is not a JSON object: {shown(data)}", 200, cost_usd=None)
    if body.get("done") is not True:
        return None
    if body.get("error"):
        return read_fault(200, body["error"], now_s)
    response = body.get("response")
    found = response.get("generateVideoResponse", response) if isinstance(response, dict) else None
    if not isinstance(found, dict):
        return Failed(MALFORMED, f"the operation is done and has no response: {shown(body)}", 200, cost_usd=None)
    for sample in _list(found.get("generatedSamples") or found.get("generatedVideos") or found.get("videos")):
        video = sample.get("video", sample)
        if isinstance(video, dict):
            if (uri := video.get("uri") or video.get("gcsUri")) and isinstance(uri, str):
                return uri
            if (made := media_of(video.get("bytesBase64Encoded"), video.get("mimeType") or "video/mp4")) is not None:
                return made
    reasons = found.get("raiMediaFilteredReasons")
    if found.get("raiMediaFilteredCount") or reasons:
        said = "; ".join(str(one) for one in reasons) if isinstance(reasons, list) else ""
        return Failed(SAFETY, f"Google's filter kept the video back{': ' + said[:300] if said else ''}", 200)
    return Failed(EMPTY, "the operation is done and has no video", 200, cost_usd=None)


def usage_of(found: Mapping[str, Any]) -> Usage:
    """Return tokens as Google counted them: what the model thinks is billed as what it says."""

    def count(name: str) -> int:
        return int(amount(found.get(name), MOST_TOKENS) or 0)

    thoughts = count("thoughtsTokenCount")
    of_images = sum(
        int(amount(one.get("tokenCount"), MOST_TOKENS) or 0)
        for one in _list(found.get("candidatesTokensDetails"))
        if one.get("modality") == "IMAGE"
    )
    return Usage(
        prompt_tokens=count("promptTokenCount") + count("toolUsePromptTokenCount"),
        completion_tokens=count("candidatesTokenCount") + thoughts,
        cached_tokens=count("cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        image_tokens=of_images,
    )


def media_of(encoded: object, media_type: object) -> Media | None:
    """Return what base64 stands for; None for what is none."""
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        return Media(base64.b64decode(encoded, validate=True), word(media_type) or "image/png")
    except (binascii.Error, ValueError):
        return None


def _list(found: object) -> Iterable[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
