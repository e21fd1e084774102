"""From a file to a `Configuration`, with every problem at once."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from shared.config.checks import at, check
from shared.config.configuration import Configuration
from shared.config.errors import ConfigInvalid, Problem, json_path
from shared.config.keys import Location, Notes, description, read

NAME: Final = "orchestration_config.json"
VARIABLE: Final = "SEGUE_CONFIG"
BESIDE: Final = Path(__file__).resolve().parents[2] / NAME
MAX_BYTES: Final = 16 * 1024 * 1024

KEY_VARIABLES: Final = {"openrouter": "OPENROUTER_API_KEY", "google_ai": "GOOGLE_AI_API_KEY"}
PLACEHOLDERS: Final = (
    "your",
    "<",
    "${",
    "$",
    "xxx",
    "env:",
    "changeme",
    "replace",
    "insert",
    "sk-xxx",
    "sk-or-xxx",
    "...",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, what its author should know, and where it came from."""

    configuration: Configuration
    warnings: tuple[str, ...]
    path: Path


def find(env: Mapping[str, str]) -> Path:
    """Return where the configuration is: SEGUE_CONFIG, else the working directory, else beside the packages."""
    named = env.get(VARIABLE)
    if named:
        return Path(named)
    here = Path(NAME)
    return here if here.is_file() else BESIDE


def load(path: Path | None = None, env: Mapping[str, str] | None = None) -> Loaded:
    """Read and check the configuration file.

    `env` is only asked for SEGUE_CONFIG, when no path is given. Raises `ConfigInvalid` with everything that is wrong.
    """
    source = path if path is not None else find(os.environ if env is None else env)
    configuration, warnings = parse(_text(source), str(source))
    return Loaded(configuration, warnings, source)


def parse(text: str, source: str = NAME) -> tuple[Configuration, tuple[str, ...]]:
    """Return the configuration that a text says, and the warnings. Raises `ConfigInvalid`."""
    try:
        return _parsed(text, source)
    except RecursionError:
        raise ConfigInvalid(source, [Problem("$", "values nested too deeply", "at most some hundred levels")]) from None


def _parsed(text: str, source: str) -> tuple[Configuration, tuple[str, ...]]:
    notes = Notes()
    raw = _json(text, source, notes)
    _keys_of_providers(raw, notes)
    document = read(Configuration, raw, (), notes)
    if isinstance(document, dict):
        check(document, notes)
    configuration = None
    try:
        configuration = Configuration.model_validate_json(json.dumps(document))
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=True):
            _note(item, document, notes)
    if notes.problems or configuration is None:
        renamed = tuple(_renamed(raw))
        raise ConfigInvalid(source, _once([_in_file(problem, renamed) for problem in notes.problems]))
    return configuration, tuple(notes.warnings)


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigInvalid(str(path), [Problem("$", f"a file of {size:,} bytes", f"at most {MAX_BYTES:,}")])
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        expected = f"{NAME} in the working directory, or its path in {VARIABLE}"
        raise ConfigInvalid(str(path), [Problem("$", "no such file", expected)]) from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(str(path), [Problem("$", f"bytes that are not UTF-8 ({error})", "UTF-8 text")]) from error
    except OSError as error:
        raise ConfigInvalid(
            str(path), [Problem("$", error.strerror or str(error), "a file that can be read")]
        ) from error


def _json(text: str, source: str, notes: Notes) -> JsonValue:
    """Return the text as JSON; refuses what JSON does not have (NaN) or leaves open (a key twice)."""

    def constant(name: str) -> JsonValue:
        raise ValueError(f"{name} is not JSON")

    def members(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            for key in found:
                if keys.count(key) > 1:
                    notes.problems.append(
                        Problem(f"$..{key}", f"the key {keys.count(key)} times in one object", "it once")
                    )
        return found

    try:
        document: JsonValue = json.loads(text, parse_constant=constant, object_pairs_hook=members)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigInvalid(source, [Problem("$", f"{error.msg} at {where}", "valid JSON")]) from None
    except ValueError as error:
        raise ConfigInvalid(source, [Problem("$", str(error), "valid JSON")]) from None
    return document


def _keys_of_providers(raw: JsonValue, notes: Notes) -> None:
    """Warn of keys in the file, and take out what only stands where a key should be."""
    keys = at(raw, ("api_keys",))
    if not isinstance(keys, dict):
        return
    for name, variable in KEY_VARIABLES.items():
        value = keys.get(name)
        if not isinstance(value, str):
            continue
        if not value.strip() or value.lower().startswith(PLACEHOLDERS):
            keys[name] = None
            if value.strip():
                notes.warn(("api_keys", name), f"a placeholder, not a key; set {variable} in the environment")
        else:
            notes.warn(("api_keys", name), f"keys do not belong in a file; move it to {variable} in the environment")


def _note(item: ErrorDetails, document: JsonValue, notes: Notes) -> None:
    """Note what validation found, in the words of this module."""
    location: Location = item["loc"]
    said = description(Configuration, location)
    expected = f"{_expected(item)} ({said})" if said else _expected(item)
    if location and location[-1] == "[key]":
        notes.refuse(location[:-1], str(item["input"]), _expected(item))
    elif item["type"] == "missing":
        notes.problems.append(Problem(json_path(location), "nothing", expected))
    else:
        notes.refuse(location, at(document, location), expected)


_EXPECTED: Final = {
    "missing": "this key, which is required",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_pattern_mismatch": "a URL that begins with http:// or https://",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "model_type": "an object",
    "finite_number": "a finite number",
}


def _expected(item: ErrorDetails) -> str:
    plain = _EXPECTED.get(item["type"])
    if plain is not None:
        return plain
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """Return each problem once, in the order of the file's sections."""
    sections = [str(one.alias or name) for name, one in Configuration.model_fields.items()]

    def place(problem: Problem) -> int:
        section = problem.path.removeprefix("$.").partition(".")[0].partition("[")[0]
        return sections.index(section) if section in sections else -1

    return sorted(dict.fromkeys(problems), key=place)


def _renamed(raw: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield (path as read, path in the file) of what a template has in another place than where it is read."""
    templates = at(raw, ("workflow_templates",))
    for name, template in templates.items() if isinstance(templates, dict) else ():
        here = json_path(("workflow_templates", name))
        inner = at(template, ("workflow",))
        if isinstance(template, dict) and "variables" not in template:
            if "parameters" in template:
                yield f"{here}.variables", f"{here}.parameters"
            elif isinstance(inner, dict):
                yield f"{here}.variables", f"{here}.workflow.variables"
        if isinstance(inner, dict):
            yield f"{here}.workflow", f"{here}.workflow.workflow"


def _in_file(problem: Problem, renamed: Sequence[tuple[str, str]]) -> Problem:
    for read_at, written_at in renamed:
        if problem.path.startswith(read_at):
            return replace(problem, path=written_at + problem.path[len(read_at) :])
    return problem
