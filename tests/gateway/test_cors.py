"""Pages of other hosts: none may read our answers, but for those that the operator lists."""

import pytest

from services.gateway.origins import Origins
from shared.bus.server import NatsServer
from tests.gateway.serving import serving

PAGE = "https://app.example.org"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,segue-callback-url,x-stainless-lang",
}


@pytest.mark.parametrize(("listed", "allowed"), [("", None), (PAGE, PAGE), ("https://other.example", None), ("*", "*")])
async def test_only_listed_pages_may_read_answers(nats_server: NatsServer, listed: str, allowed: str | None) -> None:
    """Asked before (preflight) and in the answer itself, also where it is an error."""
    origins = Origins.read({"SEGUE_CORS_ORIGINS": listed})
    async with serving(nats_server.url, origins=origins) as http:
        asked = await http.options("/chat", headers=PREFLIGHT)
        assert asked.headers.get("access-control-allow-origin") == allowed
        if allowed is not None:
            assert asked.status_code == 200
            assert {"segue-callback-url", "x-stainless-lang"} <= set(
                asked.headers["access-control-allow-headers"].lower().split(", ")
            )
        for path, status in (("/healthz", 200), ("/nothing", 404)):
            answer = await http.get(path, headers={"Origin": PAGE})
            assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (status, allowed)
        assert "access-control-allow-credentials" not in asked.headers
