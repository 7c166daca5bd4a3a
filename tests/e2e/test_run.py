"""The repository as a new user meets it: `make run`'s demo and `gateway dev`."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.ports import free_port
from gateway.cli import main
from tests.e2e.processes import ROOT, Command, backend

DEMO_PORTS = (8000, 8080, 9091)


def _are_free() -> bool:
    for port in DEMO_PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


def _asked(line: str) -> tuple[str, str]:
    """Return the status and the body that a printed curl line gives."""
    call, _, _ = line.partition("  #")
    done = subprocess.run(
        ["sh", "-c", f"{call} -s -w '\\n%{{http_code}}'"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    answer, _, status = done.stdout.rpartition("\n")
    return status, answer.rpartition("\n\n")[2] or answer


def test_each_line_that_the_demo_prints_answers_what_is_said_beside_it() -> None:
    """At least six, of every kind; Ctrl-C stops all of it cleanly."""
    if not _are_free():
        pytest.skip("the ports of the demo are taken on this machine")
    with Command(["-m", "examples.demo"], cwd=ROOT) as demo:
        demo.wait_to_say("Ctrl-C stops everything")
        lines = [line for line in demo.out.splitlines() if line.startswith("curl ")]
        for line in lines:
            wanted = line.rpartition("  # ")[2].split()[0]
            status, body = _asked(line)
            assert status == wanted, (line, body)
            if "alice reads her own" in line:
                seen = json.loads(body.rpartition("\r\n\r\n")[2])["identity"]
                assert seen["caller"] == "c-1"
                assert seen["roles"] == ["customer"]
        assert len(lines) >= 6
        assert demo.end(signal.SIGINT) == 0
        assert "stopped" in demo.out
        assert "Traceback" not in demo.out + demo.err
    assert _are_free()


def test_dev_needs_nothing_but_an_upstream(tmp_path: Path) -> None:
    """It makes keys, people and policy, and says why somebody was refused."""
    listen = f"127.0.0.1:{free_port()}"
    with backend() as upstream:
        words = ["-m", "gateway", "dev", "--upstream", upstream, "--listen", listen]
        with Command(words, cwd=tmp_path) as dev:
            dev.wait_to_say("revoke: ")
            tokens = dict(re.findall(r"export (\w+)=(\S+)", dev.out))
            lines = [line for line in dev.out.splitlines() if line.startswith("curl ")]
            assert len(lines) == 5
            for line in lines:
                status, _ = _asked(_with(line, tokens))
                wanted = line.rpartition("  # ")[2].split()[0].rstrip(":")
                assert status == {"passes": "200"}.get(wanted, wanted), line
            assert "permission.missing:app:write" in dev.wait_to_say("app:write").out

            config = str(tmp_path / ".gateway/dev/gateway.toml")
            told = CliRunner().invoke(main, ["revoke", "-c", config, "--sub", "alice"])
            assert told.exit_code == 0, told.output
            assert _asked(_with(lines[0], tokens))[0] == "401"
            assert dev.end(signal.SIGINT) == 0
    assert not (tmp_path / ".gateway/dev/admin.sock").exists()


def _with(line: str, tokens: dict[str, str]) -> str:
    for name, token in tokens.items():
        line = line.replace(f"${name}", token)
    return line


def test_dev_refuses_to_be_seen_from_elsewhere(tmp_path: Path) -> None:
    """Its people's tokens are printed, so another flag is asked for (R99)."""
    words = ["dev", "--upstream", "http://127.0.0.1:9", "--dir", str(tmp_path / "d")]

    outcome = CliRunner().invoke(main, [*words, "--listen", "0.0.0.0:8080"])

    assert outcome.exit_code == 2
    assert "--allow-remote" in outcome.output
    assert not (tmp_path / "d").exists()
