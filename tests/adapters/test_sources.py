"""gateway.adapters.sources: what is known of issuers without an HTTP client."""

from __future__ import annotations

import subprocess
import sys

from gateway.adapters.sources import resolve_name


async def test_names_are_looked_up_by_the_system() -> None:
    """As the loop does it, without blocking."""
    assert "127.0.0.1" in await resolve_name("127.0.0.1", 443)


def test_who_asks_nobody_has_no_http_client() -> None:
    """It takes 70 ms to import, which is a tenth of a start."""
    ask = "import sys, gateway.cli.serve; print('httpx2' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, check=True)
    assert said.stdout == b"False\n"
