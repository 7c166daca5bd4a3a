"""gateway.cli.serve: how a gateway that can't start ends, and what one prints."""

from __future__ import annotations

import contextlib
import gc
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from bench.ports import free_port
from gateway.cli import serve as serving
from gateway.cli.serve import coloured
from gateway.config.load import Loaded
from gateway.observe.access import Entry, to_json
from tests.site import Site


def serve(config: Path) -> tuple[int, str]:
    """Run the command, which is not expected to stay."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_taken_port_is_named_and_the_exit_code_is_one(tmp_path: Path) -> None:
    """Without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = Site(tmp_path, listen=f"127.0.0.1:{port}")
        status, said = serve(site.write())

    assert status == 1
    assert "cannot start" in said
    assert str(port) in said
    assert "Traceback" not in said


def test_a_key_file_that_holds_no_key_is_a_configuration_problem(
    tmp_path: Path,
) -> None:
    """It is named, and nothing of what is in it."""
    site = Site(tmp_path)
    config = site.write()
    (tmp_path / "identity" / "1.pem").write_text("not a key, but secret")

    status, said = serve(config)

    assert status == 3
    assert "1.pem" in said
    assert "but secret" not in said


def test_a_line_for_a_person_ends() -> None:
    """It holds the reason of a denial."""
    line = coloured(Entry(0.0, "r", decision="deny", reason="token.expired"))

    assert line.endswith(b"\n")
    assert b"token.expired" in line


@pytest.mark.parametrize(("said", "lines"), [("true", 1), ("false", 0)])
def test_the_access_log_can_be_turned_off(
    tmp_path: Path, said: str, lines: int
) -> None:
    """`[log] access = false`: nothing on stdout, the other log goes on."""
    port = free_port()
    site = Site(tmp_path, listen=f"127.0.0.1:{port}")
    site.more = f"[log]\naccess = {said}"
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "-c", str(site.write())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    status, until = 0, time.monotonic() + 30
    with httpx2.Client(trust_env=False) as client:
        while not status and process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(httpx2.TransportError):
                status = client.get(f"http://127.0.0.1:{port}/nowhere").status_code
            time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=30)

    assert status == 404
    assert len(out.splitlines()) == lines
    assert "listening on" in err


def test_what_is_there_at_the_start_is_not_looked_through_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector would take 40 ms each time; it leaves it alone from then on.

    And what comes later it looks through whole a thirtieth as often as by itself.
    """
    happened: list[object] = []

    async def served(
        _loaded: Loaded,
        _log: object,
        *,
        on_ready: Callable[[object], None],
        **_: object,
    ) -> None:
        on_ready(None)

    monkeypatch.setattr(serving, "serve", served)
    monkeypatch.setattr(gc, "freeze", lambda: happened.append("frozen"))
    monkeypatch.setattr(gc, "set_threshold", lambda *to: happened.append(to))
    site = Site(tmp_path)
    site.write()
    loaded = site.load()
    serving.run(loaded, lambda: loaded, to_json, lambda _: happened.append("ready"))

    assert happened == [(700, 3, 300), "frozen", "ready"]
