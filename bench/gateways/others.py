"""The gateways beside ours: where each is installed, how it is started and asked."""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateways.targets import Target, completion
from shared.bus.server import free_port

START_SERVER = Path("node_modules", "@portkey-ai", "gateway", "build", "start-server.js")


class NotThere(Exception):
    """A gateway is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Other:
    """A gateway that can be started; its target has no processes yet."""

    command: Sequence[str]
    ready_url: str
    target: Target
    environment: Mapping[str, str] = field(default_factory=dict)


def litellm(place: Path | None, provider: str, model: str, folder: Path) -> Other:
    """Return LiteLLM's proxy out of a virtual environment; None looks on the PATH. Raises `NotThere`."""
    program = str(place.absolute() / "bin" / "litellm") if place is not None else shutil.which("litellm")
    if program is None or not Path(program).exists():
        raise NotThere(
            f"LiteLLM is skipped, there is no {program or 'litellm on the PATH'}. To install it: "
            "python3 -m venv DIR && DIR/bin/pip install 'litellm[proxy]'; then --litellm DIR or BENCH_LITELLM=DIR"
        )
    key = f"sk-{secrets.token_hex(24)}"
    configuration = folder / "litellm.yaml"
    served = {"model": f"openai/{model}", "api_base": provider, "api_key": "none"}
    document = {
        "model_list": [{"model_name": model, "litellm_params": served}],
        "general_settings": {"master_key": key},
    }
    configuration.write_text(json.dumps(document))  # JSON is YAML
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    return Other(
        command=(program, "--config", str(configuration), *where),
        ready_url=f"{url}/health/liveliness",
        target=Target(
            "litellm", f"{url}/v1/chat/completions", completion(model), headers={"authorization": f"Bearer {key}"}
        ),
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_UI_PATH": str(folder / "litellm-ui"),  # else it rewrites its pages where it is installed
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def portkey(place: Path | None, provider: str, model: str) -> Other:
    """Return Portkey's gateway out of the folder with its `node_modules`; None: this one. Raises `NotThere`."""
    program, node = (place or Path()).absolute() / START_SERVER, shutil.which("node")
    if node is None or not program.exists():
        raise NotThere(
            f"Portkey is skipped, there is no {'node on the PATH' if node is None else program}. To install it: "
            "npm install --ignore-scripts --prefix DIR @portkey-ai/gateway; then --portkey DIR or BENCH_PORTKEY=DIR"
        )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": "Bearer none", "x-portkey-provider": "openai", "x-portkey-custom-host": provider}
    return Other(
        command=(node, str(program), f"--port={port}", "--headless"),
        ready_url=f"{url}/",
        target=Target("portkey", f"{url}/v1/chat/completions", completion(model), headers=headers),
    )
