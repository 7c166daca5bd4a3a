"""gateway.cli.health: exit code 0 or 1, for a container."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main


class _Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/livez": 200, "/readyz": 503}.get(self.path, 404)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"said\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Probes) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def health(*words: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(main, ["health", *words])
    return outcome.exit_code, outcome.output


def test_it_asks_where_the_configuration_says(tmp_path: Path, port: int) -> None:
    """Only [probes] is read: a probe must not fail for a secret it does not have."""
    config = tmp_path / "gateway.toml"
    config.write_text(f'[probes]\nlisten = "0.0.0.0:{port}"\n[store]\nurl = "env:NO"')

    assert health("-c", str(config)) == (0, "said\n")
    assert health("-c", str(config), "--ready") == (1, "said\n")


def test_it_asks_where_it_is_told(port: int) -> None:
    """Whole URLs too, with a path of their own."""
    assert health("--url", f"http://127.0.0.1:{port}/livez") == (0, "said\n")
    assert health("--url", f"http://127.0.0.1:{port}/readyz")[0] == 1


@pytest.mark.parametrize(
    "text", ["", "no toml", "[probes]\nlisten = 7", "probes = 1", None]
)
def test_without_an_answer_it_fails(tmp_path: Path, text: str | None) -> None:
    """Whatever the configuration looks like; nothing listens on the default here."""
    config = tmp_path / "gateway.toml"
    if text is not None:
        config.write_text(text)

    status, said = health("-c", str(config), "--url", "http://127.0.0.1:9")

    assert status == 1
    assert said == "no answer: ConnectionRefusedError\n"
