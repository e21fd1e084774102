"""Gateways served in this process, on free ports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn

from services.gateway.app import application
from services.gateway.bounds import Bounds
from services.gateway.http.patience import Patient, patient
from services.gateway.identification import Identification
from services.gateway.keeping import Keeping
from services.gateway.listings import Listings, OfferedModel
from services.gateway.origins import Origins
from shared.config.operation import WorkflowLimits
from shared.config.templates import Parameter, Template
from shared.contracts.workflow import Queue, Task
from shared.service import KEEP_ALIVE_S

ROLES = ("medium_ai", "thinking_ai", "code_ai")


def listings(timeout_s: float = 20) -> Listings:
    """Return what the gateway under test offers."""
    report = Template(
        description="A report about a topic.",
        workflow=(
            Queue(
                type="linear",
                tasks=(
                    Task(model="thinking_ai", prompt="Research {topic}", output_variable="research"),
                    Task(model="medium_ai", prompt="Who reads about {topic}: {audience}?", output_variable="readers"),
                ),
            ),
            Queue(
                type="inline",
                tasks=(Task(model="medium_ai", prompt="Report on {research} for {readers}", output_variable="report"),),
            ),
        ),
        variables={
            "topic": Parameter(description="What it is about."),
            "length": Parameter(type="integer"),
            "audience": Parameter(default="everyone"),
        },
    )
    return Listings(
        name="Segue under test",
        version="1.2.3",
        models=tuple(OfferedModel(role, "openrouter", f"maker/{role}", f"to be {role}") for role in ROLES),
        addons=("executive_summary", "newsletter"),
        templates={"report": report},
        timeout_s=timeout_s,
        limits=WorkflowLimits.model_validate({"maxTasks": 10}),
    )


@asynccontextmanager
async def serving(
    url: str,
    *,
    timeout_s: float = 20,
    identification: Identification | None = None,
    keeping: Keeping | None = None,
    origins: Origins | None = None,
    http: type[Patient] | None = None,
    **bounds: int,
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve one gateway; yields a client for it."""
    app_bounds = Bounds(**bounds)
    app = application(
        url, listings(timeout_s), app_bounds, identification=identification, keeping=keeping, origins=origins
    )
    config = uvicorn.Config(
        app,
        http=http or patient(app_bounds.connections),
        host="127.0.0.1",
        port=0,
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,  # as it is served: longer than the client keeps a connection
    )
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task
