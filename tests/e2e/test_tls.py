"""`gateway serve` behind its own certificate, which is renewed while it runs."""

from __future__ import annotations

import json
import socket
import ssl
import time
from datetime import timedelta
from pathlib import Path

import httpx2
from click.testing import CliRunner

from bench.ports import free_port
from gateway.cli import main
from tests.certificates import START, Authority, Signed
from tests.e2e.processes import PATIENCE, Command, backend
from tests.site import Site

CA = Authority()
OURS, NEXT, ALICE = CA.sign(), CA.sign(), CA.sign("alice")
ME = "/api/orders/me"
TLS = """
[server.tls]
certificate = "file:tls.crt"
key = "file:tls.key"
client = "optional"
client_ca = "file:ca.crt"
"""


def _site(directory: Path, ours: Signed) -> Site:
    ours.write(directory)
    CA.write(directory)
    return Site(directory, more=TLS)


def _shown(port: int, client: ssl.SSLContext) -> bytes:
    """Return the certificate that whoever listens at *port* shows."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as sock,
        client.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        found = secure.getpeercert(binary_form=True)
        assert found is not None
        return found


def test_a_certificate_is_renewed_without_a_restart(tmp_path: Path) -> None:
    """HTTPS on TCP, plain HTTP on the Unix socket beside it, and a stop that cleans."""
    port, probes = free_port(), free_port()
    path = tmp_path / "run" / "data.sock"
    with backend() as upstream:
        site = _site(tmp_path, OURS)
        site.upstream = upstream
        site.listen = f'127.0.0.1:{port}", "unix:run/data.sock'
        site.more += f'[probes]\nlisten = "[::1]:{probes}"'
        words = ["-m", "gateway", "serve", "-c", str(site.write())]
        with Command(words, cwd=tmp_path) as command:
            ready = f"http://[::1]:{probes}/readyz"
            command.wait_for(ready)
            url = f"https://127.0.0.1:{port}{ME}"
            with httpx2.Client(verify=CA.client(), trust_env=False) as client:
                assert client.get(url, headers=site.bearer()).status_code == 200
                shows = CA.client(ALICE.write(tmp_path, "alice"))
                with httpx2.Client(verify=shows, trust_env=False) as alice:
                    assert alice.get(url, headers=site.bearer()).status_code == 200
                transport = httpx2.HTTPTransport(uds=str(path))
                with httpx2.Client(transport=transport, trust_env=False) as local:
                    got = local.get(f"http://localhost{ME}", headers=site.bearer())
                    assert got.status_code == 200

                assert _shown(port, CA.client()) == OURS.der
                checks = httpx2.get(f"{ready}?verbose", trust_env=False).text
                assert "[+] TLS certificate: ok" in checks
                NEXT.write(tmp_path)
                until = time.monotonic() + PATIENCE
                while _shown(port, CA.client()) != NEXT.der:
                    assert time.monotonic() < until
                    time.sleep(0.2)
                assert client.get(url, headers=site.bearer()).status_code == 200
            assert command.end() == 0
            assert not path.exists()
            clients = [json.loads(line)["client"] for line in command.out.splitlines()]
            assert clients == ["127.0.0.1", "127.0.0.1", "", "127.0.0.1"]
            assert "the certificate was loaded anew" in command.err
            for line in (OURS.key_pem + NEXT.key_pem).decode().splitlines():
                assert line not in command.out + command.err


def test_check_says_what_is_wrong_with_a_certificate(tmp_path: Path) -> None:
    """Expired is a weakening; a key of another one is an error, and exit code 3."""
    old = CA.sign(start=START - timedelta(days=90), days=89)
    config = str(_site(tmp_path, old).write())
    done = CliRunner().invoke(main, ["check", "-c", config])
    assert done.exit_code == 0
    assert "expired TLS certificate" in done.output
    (tmp_path / "tls.key").write_bytes(OURS.key_pem)
    done = CliRunner().invoke(main, ["check", "-c", config])
    assert done.exit_code == 3
    assert "the key does not belong to the certificate" in done.output
