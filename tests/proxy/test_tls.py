"""gateway.proxy.tls: with real clients, and certificates that change."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from gateway.clock import Clock
from gateway.config.settings import Address, Server, Tls
from gateway.observe.metrics import CERTIFICATE_END, HANDSHAKES_FAILED
from gateway.proxy.tls import Certificates, Listener
from gateway.tokens.certificates import SOON, thumbprint
from tests.backends import Connection, answer, echoing, running
from tests.certificates import START, Authority, Signed
from tests.proxy.harness import CLOCK, Bench, Caller, gate_to, post, request

CA = Authority()
OURS, NEXT, ALICE = CA.sign(), CA.sign(), CA.sign("alice")
OTHERS = Authority("another")


@asynccontextmanager
async def secured(
    tls: Tls, *, server: Server | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Bench, Certificates]]:
    """Run a data port that speaks TLS in front of an echo."""
    certificates = Certificates(tls, CLOCK)
    async with (
        running(echoing) as backend,
        gate_to(backend, server=server, tls=certificates) as bench,
    ):
        bench.client = client or CA.client()
        yield bench, certificates


def shown(caller: Caller) -> bytes:
    """Return the certificate that the gateway has shown to *caller*."""
    secure: ssl.SSLObject = caller.writer.get_extra_info("ssl_object")
    found = secure.getpeercert(binary_form=True)
    assert found is not None
    return found


async def test_it_speaks_http_1_1_over_tls_1_3(tmp_path: Path) -> None:
    """And says so in ALPN; the backend is told https."""
    client = CA.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    certificates = Certificates(Tls(*OURS.write(tmp_path)), CLOCK)
    async with (
        running(echoing) as backend,
        gate_to(backend, tls=certificates) as bench,
    ):
        bench.client = client
        caller = await bench.caller()
        for _ in range(2):
            assert (await caller.call(request(b"/x"))).body == b"/x  "
        secure: ssl.SSLObject = caller.writer.get_extra_info("ssl_object")
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == "http/1.1"
        assert secure.compression() is None
        assert [head.scheme for head in bench.decision.heads] == ["https"] * 2
        assert bench.decision.heads[0].peer.certificate is None
        for got in backend.requests:
            assert got.values(b"x-forwarded-proto") == [b"https"]


@pytest.mark.parametrize("cipher", ["ECDHE+AESGCM", "ECDHE+CHACHA20"])
async def test_it_speaks_tls_1_2_with_aead_and_forward_secrecy(
    tmp_path: Path, cipher: str
) -> None:
    """The oldest that is still in use, in its modern form."""
    client = CA.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(cipher)
    async with secured(Tls(*OURS.write(tmp_path)), client=client) as (bench, _):
        caller = await bench.caller()
        assert (await caller.call(request())).status == 200
        secure: ssl.SSLObject = caller.writer.get_extra_info("ssl_object")
        assert secure.version() == "TLSv1.2"


@pytest.mark.parametrize(
    ("minimum", "maximum", "ciphers"),
    [
        ("1.3", ssl.TLSVersion.TLSv1_2, "DEFAULT"),
        ("1.2", ssl.TLSVersion.TLSv1_2, "ECDHE+AES+SHA256:ECDHE+AES+SHA1:!AESGCM"),
        ("1.2", ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256:AES256-SHA"),
    ],
    ids=["1.2 where 1.3 is asked for", "CBC", "no forward secrecy"],
)
async def test_what_is_too_old_is_refused(
    tmp_path: Path,
    minimum: Literal["1.2", "1.3"],
    maximum: ssl.TLSVersion,
    ciphers: str,
) -> None:
    """In the handshake, before any byte of HTTP."""
    client = CA.client()
    client.maximum_version = maximum
    client.set_ciphers(ciphers)
    tls = Tls(*OURS.write(tmp_path), minimum=minimum)
    async with secured(tls, client=client) as (bench, _):
        with pytest.raises(OSError):
            await bench.caller()
        assert not bench.decision.heads


@pytest.mark.parametrize(
    ("client", "shows", "served"),
    [
        ("none", ALICE, None),
        ("optional", None, None),
        ("optional", ALICE, thumbprint(ALICE.der)),
        ("optional", OTHERS.sign("mallory"), False),
        ("required", None, False),
        ("required", ALICE, thumbprint(ALICE.der)),
        ("required", OTHERS.sign("mallory"), False),
        ("required", CA.sign("old", start=START - timedelta(days=9), days=8), False),
    ],
)
async def test_a_client_shows_its_certificate(
    tmp_path: Path,
    client: Literal["none", "optional", "required"],
    shows: Signed | None,
    served: str | Literal[False] | None,
) -> None:
    """RFC 8705: who it was is known to the decision by x5t#S256, if it was proven."""
    context = CA.client(shows.write(tmp_path, "client") if shows else None)
    authority = None if client == "none" else CA.write(tmp_path)
    tls = Tls(*OURS.write(tmp_path), client=client, client_ca=authority)
    async with secured(tls, client=context) as (bench, _):
        if served is False:
            with pytest.raises(OSError):
                await bench.call(request())
            assert not bench.decision.heads
        else:
            assert (await bench.call(request())).status == 200
            assert bench.decision.heads[0].peer.certificate == served


async def test_a_renewed_certificate_is_shown_to_new_clients(tmp_path: Path) -> None:
    """Nothing in progress notices; nobody is asked to restart anything."""
    tls = Tls(*OURS.write(tmp_path))
    async with secured(tls) as (bench, certificates):
        before = await bench.caller()
        assert (await before.call(request())).status == 200
        NEXT.write(tmp_path)
        certificates.look()
        after = await bench.caller()
        assert (await after.call(request())).status == 200
        assert (await before.call(request())).status == 200
        assert shown(before) == OURS.der
        assert shown(after) == NEXT.der
        assert certificates.health() == ""


async def test_kubernetes_swaps_a_link(tmp_path: Path) -> None:
    """A secret's files are links to links; the one in the middle is replaced."""
    for name, signed in (("..1", OURS), ("..2", NEXT)):
        (tmp_path / name).mkdir()
        signed.write(tmp_path / name)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    tls = Tls(str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    async with secured(tls) as (bench, certificates):
        assert shown(await bench.caller()) == OURS.der
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        looking = asyncio.get_running_loop().create_task(certificates.run(0.01))
        async with asyncio.timeout(2):
            while shown(await bench.caller()) != NEXT.der:
                await asyncio.sleep(0.02)
        looking.cancel()


async def test_a_broken_pair_keeps_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in words, in the log and in /readyz, until a good one comes."""
    certificate, key = OURS.write(tmp_path)
    async with secured(Tls(certificate, key)) as (bench, certificates):
        for broken, words in (
            (NEXT.pem, "the key does not belong to the certificate"),
            (b"", "certificate: there is no PEM certificate in it"),
        ):
            caplog.clear()
            Path(certificate).write_bytes(broken)
            certificates.look()
            certificates.look()
            assert words in certificates.health()
            assert [words in line for line in caplog.messages] == [True]
            assert shown(await bench.caller()) == OURS.der
        Path(key).unlink()
        certificates.look()
        assert "No such file" in certificates.health()
        assert shown(await bench.caller()) == OURS.der
        NEXT.write(tmp_path)
        certificates.look()
        assert certificates.health() == ""
        assert shown(await bench.caller()) == NEXT.der


async def test_a_client_ca_is_loaded_anew_too(tmp_path: Path) -> None:
    """An authority that was taken out is believed by no new handshake."""
    authority = CA.write(tmp_path)
    tls = Tls(*OURS.write(tmp_path), client="required", client_ca=authority)
    client = CA.client(ALICE.write(tmp_path, "client"))
    async with secured(tls, client=client) as (bench, certificates):
        assert (await bench.call(request())).status == 200
        Path(authority).write_bytes(OTHERS.itself.pem)
        certificates.look()
        with pytest.raises(OSError):
            await bench.call(request())
        Path(authority).write_bytes(b"nothing")
        certificates.look()
        assert "client_ca: there is no PEM certificate" in certificates.health()


def test_what_does_not_work_does_not_start(tmp_path: Path) -> None:
    """In words, not in OpenSSL's."""
    certificate, _ = OURS.write(tmp_path)
    _, key = NEXT.write(tmp_path, "next")
    with pytest.raises(ValueError, match="the key does not belong"):
        Certificates(Tls(certificate, key), CLOCK)
    with pytest.raises(OSError, match="absent"):
        Certificates(Tls(str(tmp_path / "absent"), key), CLOCK)


def test_its_end_is_told_ahead(tmp_path: Path) -> None:
    """Two weeks before, and from then on."""
    end = OURS.certificate.not_valid_after_utc.timestamp()
    tls = Tls(*OURS.write(tmp_path))
    for now, words in (
        (end - SOON - 1, ""),
        (end - 86400 * 2, "it expires in 2 days"),
        (end, "it has expired"),
    ):
        clock = Clock(lambda now=now: now, CLOCK.monotonic)  # type: ignore[misc]
        assert Certificates(tls, clock).health() == words


async def test_failed_handshakes_are_logged_but_not_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain HTTP, garbage, silence: closed, and one line in a second says why."""
    caplog.set_level(logging.INFO)
    server = Server(header_timeout=0.3)
    async with secured(Tls(*OURS.write(tmp_path)), server=server) as (bench, tls):
        bench.client = None
        for sent in (request(), b"\x16\x03\x01\x00\x05junk!", b"\x16\x03", b""):
            # An alert at most, and no word of HTTP.
            assert b"HTTP" not in await bench.say(sent, within=2)
        assert not bench.port.fronts
        lines = [line for line in caplog.messages if "handshake" in line]
        assert len(lines) == 1
        assert lines[0].endswith("with 127.0.0.1 failed: HTTP_REQUEST")
        tls.failed(TimeoutError(), "")
        now = CLOCK.monotonic() + 2
        tls._clock = Clock(CLOCK.wall, lambda: now)
        tls.failed(TimeoutError(), "")
        assert caplog.messages[-1].endswith(
            "with - failed: TimeoutError (4 more before)"
        )
        end = OURS.certificate.not_valid_after_utc.timestamp()
        assert list(tls.measure()) == [
            (HANDSHAKES_FAILED, (), 6),
            (CERTIFICATE_END, (), end),
        ]


async def test_whoever_never_shakes_hands_counts(tmp_path: Path) -> None:
    """R5: the caps hold from the first packet on, and room is given back."""
    server = Server(max_connections=2, header_timeout=0.4)
    async with secured(Tls(*OURS.write(tmp_path)), server=server) as (bench, _):
        secure, bench.client = bench.client, None
        silent = [await bench.caller(), await bench.caller()]
        await asyncio.sleep(0.05)
        assert await (await bench.caller()).rest() == b""
        for one in silent:
            assert await one.rest() == b""
        bench.client = secure
        both = [await bench.caller(), await bench.caller()]
        for caller in both:
            assert (await caller.call(request())).status == 200


async def test_closing_ends_handshakes_at_once(tmp_path: Path) -> None:
    """Nobody is waited for who has asked for nothing yet."""
    async with secured(Tls(*OURS.write(tmp_path))) as (bench, _):
        idle = await bench.caller()
        bench.client = None
        half = await bench.caller()
        await half.send(b"\x16\x03\x01")
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            await bench.port.close(5)
            assert await half.rest() == b""
            assert await idle.rest() == b""


async def test_closing_waits_for_no_goodbye(tmp_path: Path) -> None:
    """An idle connection in somebody's pool is not looked at until it is used."""
    async with secured(Tls(*OURS.write(tmp_path))) as (bench, _):
        address = (bench.address.host, bench.address.port)

        def ask() -> ssl.SSLSocket:
            sock = socket.create_connection(address)
            secure = CA.client().wrap_socket(sock, server_hostname="localhost")
            secure.sendall(request())
            assert secure.recv(1024).startswith(b"HTTP/1.1 200")
            return secure

        with await asyncio.to_thread(ask):
            async with asyncio.timeout(5):
                await bench.port.close(20)


async def test_many_shake_hands_at_once(tmp_path: Path) -> None:
    """More than are accepted in one go, each with its request right behind."""
    async with secured(Tls(*OURS.write(tmp_path))) as (bench, _):
        calls = [bench.call(request(b"/%d" % each)) for each in range(100)]
        bodies = [got.body for got in await asyncio.gather(*calls)]
        assert bodies == [b"/%d  " % each for each in range(100)]


async def test_a_slow_upstream_slows_its_client_down(tmp_path: Path) -> None:
    """Back-pressure through TLS: what nobody takes is not read, nor kept."""
    gate = asyncio.Event()

    async def lazy(connection: Connection) -> None:
        got = await connection.head()
        await gate.wait()
        await connection.body(got)
        await connection.send(answer(b"%d" % len(got.body)))

    tls = Certificates(Tls(*OURS.write(tmp_path)), CLOCK)
    async with running(lazy) as backend, gate_to(backend, tls=tls) as bench:
        bench.client = CA.client()
        caller = await bench.caller()
        size, sent = 32 << 20, 0

        async def send() -> None:
            nonlocal sent
            await caller.send(post(b"/large", b"a" * size)[:-size])
            while sent < size:
                await caller.send(b"a" * 65536)
                sent += 65536

        sending = asyncio.get_running_loop().create_task(send())
        await asyncio.sleep(0.5)
        assert sent < size // 2
        gate.set()
        await sending
        assert (await caller.answer()).body == b"%d" % size


async def test_a_refused_upload_reads_its_answer(tmp_path: Path) -> None:
    """R7: TLS can't be closed by half, so the bounded linger comes before the end."""
    async with secured(Tls(*OURS.write(tmp_path))) as (bench, _):
        caller = await bench.caller()
        head = post(b"/denied", b"a" * (1 << 20))[: -(1 << 20)]
        got = await caller.call(head)
        assert got.status == 401
        assert got.values(b"connection") == [b"close"]
        await caller.send(b"a" * 10_000)
        async with asyncio.timeout(4):
            assert await caller.rest() == b""
            while bench.port.fronts:
                await asyncio.sleep(0.01)


async def test_no_descriptor_left_is_not_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port says so, and accepts again when there is one."""
    async with secured(Tls(*OURS.write(tmp_path))) as (bench, _):
        listener = bench.port._servers[0]
        assert isinstance(listener, Listener)
        real = listener._sock

        class Full:
            def accept(self) -> None:
                monkeypatch.undo()
                raise OSError(24, os.strerror(24))

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        monkeypatch.setattr(listener, "_sock", Full())
        async with asyncio.timeout(4):
            assert (await bench.call(request())).status == 200
        assert any("no connection can be accepted" in it for it in caplog.messages)


async def test_a_unix_socket_has_no_tls(tmp_path: Path) -> None:
    """Who may open it is on this host, and says no more than http."""
    listen = Address(path=str(tmp_path / "data.sock"))
    certificates = Certificates(Tls(*OURS.write(tmp_path)), CLOCK)
    async with (
        running(echoing) as backend,
        gate_to(backend, tls=certificates, listen=listen) as bench,
    ):
        assert (await bench.call(request(b"/u"))).body == b"/u  "
        assert bench.decision.heads[0].scheme == "http"
