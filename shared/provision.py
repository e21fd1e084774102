"""`python -m shared.provision`: declare every stream, consumer and bucket on the server of SEGUE_NATS_URL."""

import asyncio
import os
import sys

import nats

from shared.bus.provisioner import provision
from shared.config import Configuration, load
from shared.config.environment import Environment
from shared.config.reliability import RateLimit
from shared.topology import Limits, Window

CONNECT_WITHIN_S = 30.0


def limits_of(configuration: Configuration, environment: Environment) -> Limits:
    """Return what the configuration says of the topology."""
    return Limits(
        max_queue_depth=configuration.queuing.max_queue_depth,
        max_queue_depth_per_tenant=max(1, configuration.queuing.max_queue_depth // 2),
        max_workflows=configuration.orchestration.max_concurrent_workflows,
        retention_days=configuration.orchestration.state_retention_days,
        replicas=environment.replicas,
        cache_s=configuration.orchestration.cache_s,
        artifact_days=configuration.orchestration.artifact_retention_days,
        grants={name: windows for name, limit in configuration.rate_limiting.items() if (windows := windows_of(limit))},
    )


def windows_of(limit: RateLimit) -> tuple[Window, ...]:
    """Return how often a provider may be asked, by window."""
    found = (
        Window("second", 1, limit.burst_allowance or 0),
        Window("minute", 60, limit.requests_per_minute or 0),
        Window("day", 86_400, limit.requests_per_day or 0),
    )
    return tuple(window for window in found if window.most)


async def main() -> int:
    environment = Environment.read(os.environ)
    limits = limits_of(load().configuration, environment)
    client = await nats.connect(
        [part.strip() for part in environment.nats_url.split(",")],
        name="segue-provision",
        connect_timeout=2,
        max_reconnect_attempts=int(CONNECT_WITHIN_S / 0.25),
        reconnect_time_wait=0.25,
    )
    done = await provision(client, limits)
    await client.close()
    print(  # noqa: T201 - what an operator who runs it wants to see
        f"provisioned: {len(done.created)} created, {len(done.updated)} updated, {len(done.unchanged)} unchanged"
    )
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
