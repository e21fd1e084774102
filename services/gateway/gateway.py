"""What the HTTP routes work with: the bus, what is offered, and the places for waiting requests."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic

from starlette.requests import HTTPConnection

from services.gateway.births import Birth
from services.gateway.callbacks import CallbackDoor
from services.gateway.listings import Listings
from services.gateway.origins import Origins
from services.gateway.pages import Pages
from services.gateway.runs import Heard, Runs
from services.gateway.tenure import Tenures
from services.gateway.waiting import Waiting
from shared.access.book import KeyBook
from shared.bus.connection import Bus
from shared.history.projector import Projector
from shared.observe.logs import bound
from shared.prices import PriceBook
from shared.registry.following import LiveModels
from shared.registry.models import ModelBook
from shared.registry.schedules import Schedules
from shared.registry.templates import TemplateBook
from shared.service import Health
from shared.workflows.problems import Blueprint
from shared.workflows.validation import Catalogue


@dataclass(slots=True)
class Gateway:
    """One process's. Made in `app.py` once the bus is there."""

    bus: Bus
    runs: Runs
    waiting: Waiting
    tenures: Tenures
    """The open streams, which end when their credentials do."""
    listings: Listings
    """What is offered now: models come and go while it runs."""
    models: ModelBook
    live: LiveModels | None
    """Follows them; None where there is no configuration to follow."""
    catalogue: Catalogue
    """What a workflow may name, but for templates: see `catalogue_with`."""
    prices: PriceBook
    book: TemplateBook
    schedules: Schedules
    keys: KeyBook
    """Without secrets where no keys are used."""
    callbacks: CallbackDoor
    health: Health
    pages: Pages
    origins: Origins
    """Of the web pages that may open a WebSocket."""
    projector: Projector | None
    """Keeps the history; None where it is off."""
    started_at: float
    """`time.monotonic()`"""

    async def answered(self, birth: Birth) -> Heard:
        """Return the end of a run, holding one of the places for waiting requests. Raises what `Runs.end_of` does."""
        async with self.waiting.place(birth.run.tenant):
            with bound(run_id=birth.run.run_id):
                return await self.runs.end_of(birth)

    def offer(self, listings: Listings) -> None:
        """Offer something else from now on."""
        self.listings, self.catalogue = listings, listings.catalogue()

    def catalogue_with(self, templates: Mapping[str, Blueprint]) -> Catalogue:
        """Return what a workflow may name that names these templates."""
        return replace(self.catalogue, templates=templates)

    def uptime_s(self) -> float:
        return monotonic() - self.started_at


def gateway_of(request: HTTPConnection) -> Gateway:
    """Return the gateway that serves a request."""
    gateway: Gateway = request.app.state.gateway
    return gateway
