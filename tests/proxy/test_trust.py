"""gateway.proxy.trust: who an upstream has to be, and what happens if it isn't."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config.settings import Address, Timeouts, UpstreamTls, UpstreamUrl
from gateway.proxy.trust import Files, Trust
from tests.backends import Backend, Behaviour, Connection, echoing, running
from tests.certificates import START, Authority, Signed
from tests.proxy.harness import Answer, Bench, gate_to, post, request

CA, OTHERS = Authority(), Authority("another")
OURS = CA.sign("orders.internal")
US = CA.sign("gateway.internal")


@dataclass
class Server:
    """How a backend speaks TLS, and what it was asked for."""

    context: ssl.SSLContext
    names: list[str | None] = field(default_factory=list)

    @classmethod
    def showing(cls, signed: Signed, directory: Path) -> Server:
        server = cls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        server.context.load_cert_chain(*signed.write(directory, "backend"))
        server.context.sni_callback = server._named
        return server

    def _named(self, _: object, name: str | None, __: object) -> None:
        self.names.append(name)


@asynccontextmanager
async def secured(
    server: Server, tls: UpstreamTls, behaviour: Behaviour = echoing, **more: Any
) -> AsyncIterator[tuple[Bench, Backend]]:
    """Run a data port in front of a backend that speaks TLS."""
    async with running(behaviour, secure=server.context) as backend:
        address = Address("127.0.0.1", backend.port)
        urls = (UpstreamUrl(address, str(address), secure=True),)
        async with gate_to(backend, urls=urls, tls_to=tls, **more) as bench:
            yield bench, backend


def assert_refused(got: Answer, backend: Backend) -> None:
    """502 by name, never by address; and the backend saw no request."""
    assert got.status == 502
    assert b'\\"backend\\"' in got.body
    for told in (b"127.0.0.1", b"%d" % backend.port, b"orders.internal"):
        assert told not in got.body
    assert not backend.requests


async def test_it_speaks_tls_to_who_it_should_be(tmp_path: Path) -> None:
    """The name is asked for and checked; connections are kept."""
    server = Server.showing(OURS, tmp_path)
    tls = UpstreamTls(ca=CA.write(tmp_path), server_name="orders.internal")
    async with secured(server, tls) as (bench, backend):
        caller = await bench.caller()
        for number in range(3):
            got = await caller.call(request(b"/%d" % number))
            assert (got.status, got.body) == (200, b"/%d  " % number)
        large = await caller.call(post(b"/large/x", b"a" * 1_000_000))
        assert len(large.body) > 1_000_000
        assert len(backend.connections) == 1
    assert server.names == ["orders.internal"]


async def test_an_address_is_checked_as_an_address(tmp_path: Path) -> None:
    """Without server_name it has to be who the URL says; no SNI for an address."""
    server = Server.showing(OURS, tmp_path)
    async with secured(server, UpstreamTls(ca=CA.write(tmp_path))) as (bench, _):
        assert (await bench.call(request())).status == 200
    assert server.names == [None]


@pytest.mark.parametrize(
    ("shown", "trusted", "name"),
    [
        (OURS, CA, "other.internal"),
        (OURS, OTHERS, "orders.internal"),
        (CA.sign("orders.internal", start=START - timedelta(days=99)), CA, None),
    ],
    ids=["wrong name", "wrong CA", "expired"],
)
async def test_who_it_should_not_be_is_502(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shown: Signed,
    trusted: Authority,
    name: str | None,
) -> None:
    """Before a byte of the request; the log knows why."""
    server = Server.showing(shown, tmp_path)
    tls = UpstreamTls(ca=trusted.write(tmp_path), server_name=name or "orders.internal")
    async with secured(server, tls) as (bench, backend):
        for _ in range(5):
            assert_refused(await bench.call(request()), backend)
            assert_refused(await bench.call(post(b"/", b"x")), backend)
        state = bench.port.pools["backend"].state().endpoints[0]
    assert state.trouble.startswith("its certificate: ")
    assert state.trouble in caplog.text
    assert bench.entries[0].reason == "upstream.refused"


async def test_the_systems_authorities_are_trusted_by_default(tmp_path: Path) -> None:
    """Ours is not one of them."""
    server = Server.showing(OURS, tmp_path)
    tls = UpstreamTls(server_name="orders.internal")
    async with secured(server, tls) as (bench, backend):
        assert_refused(await bench.call(request()), backend)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Without it, and with another authority's, 502; with it, served."""
    server = Server.showing(OURS, tmp_path)
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(CA.write(tmp_path))
    server.context.maximum_version = version
    ca = CA.write(tmp_path)
    strangers = OTHERS.sign("gateway.internal").write(tmp_path, "stranger")
    for shows in (None, strangers):
        certificate, key = shows or (None, None)
        tls = UpstreamTls(ca, certificate, key)
        async with secured(server, tls) as (bench, backend):
            for _ in range(5):
                assert_refused(await bench.call(request()), backend)
    tls = UpstreamTls(ca, *US.write(tmp_path, "us"))
    async with secured(server, tls) as (bench, backend):
        assert (await bench.call(request())).status == 200
        secure = backend.connections[0].writer.get_extra_info("ssl_object")
        assert secure.getpeercert(binary_form=True) == US.der


async def test_what_is_too_old_is_refused(tmp_path: Path) -> None:
    """[upstream.x.tls] minimum."""
    server = Server.showing(OURS, tmp_path)
    server.context.maximum_version = ssl.TLSVersion.TLSv1_2
    ca = CA.write(tmp_path)
    async with secured(server, UpstreamTls(ca, minimum="1.3")) as (bench, backend):
        assert_refused(await bench.call(request()), backend)
    async with secured(server, UpstreamTls(ca)) as (bench, _):
        assert (await bench.call(request())).status == 200


async def test_plain_http_on_the_other_side_is_502(tmp_path: Path) -> None:
    """And a plain request is never sent to a port that should speak TLS."""
    async with running(echoing) as backend:
        address = Address("127.0.0.1", backend.port)
        urls = (UpstreamUrl(address, str(address), secure=True),)
        tls = UpstreamTls(CA.write(tmp_path))
        async with gate_to(backend, urls=urls, tls_to=tls) as bench:
            async with asyncio.timeout(5):
                got = await bench.call(request())
            assert got.status in {502, 504}
            assert not backend.requests
            assert b"GET" not in backend.raw


async def test_a_handshake_has_the_time_to_connect(tmp_path: Path) -> None:
    """Somebody who accepts and says nothing."""

    async def listening(connection: Connection) -> None:
        await connection.rest()

    async with running(listening) as backend:
        address = Address("127.0.0.1", backend.port)
        urls = (UpstreamUrl(address, str(address), secure=True),)
        tls = UpstreamTls(CA.write(tmp_path))
        times = Timeouts(connect=0.3)
        async with gate_to(backend, urls=urls, tls_to=tls, timeouts=times) as bench:
            async with asyncio.timeout(2):
                assert (await bench.call(request())).status == 504


@pytest.mark.parametrize("is_said", [True, False], ids=["said", "cut off"])
async def test_an_answer_that_is_cut_off_is_not_whole(
    tmp_path: Path, *, is_said: bool
) -> None:
    """One that ends with its connection ends with TLS's word, or is broken.

    Anybody between could end the TCP connection (RFC 8446 section 6.1).
    """

    async def until_close(connection: Connection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\npay 1")
        await asyncio.sleep(0.1)
        transport = connection.writer.transport
        if is_said:
            transport.close()
        else:
            own = transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(own)) as sock:
                sock.shutdown(socket.SHUT_WR)
            await connection.rest()

    server = Server.showing(OURS, tmp_path)
    tls = UpstreamTls(CA.write(tmp_path))
    async with secured(server, tls, until_close) as (bench, _):
        async with asyncio.timeout(5):
            got = await bench.call(request())
        assert got.body == b"pay 1"
        assert got.whole is is_said


async def test_files_that_change_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections take what they hold; half of a pair changes nothing."""
    caplog.set_level(logging.INFO)
    server = Server.showing(OURS, tmp_path)
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(CA.write(tmp_path))
    certificate, key = US.write(tmp_path, "us")
    tls = UpstreamTls(CA.write(tmp_path), certificate, key)
    renewed = CA.sign("gateway.internal")
    async with secured(server, tls, keep_alive=0.0) as (bench, backend):
        trust = bench.port.pools["backend"].tls
        assert trust is not None
        context = trust.context
        trust.look()
        assert trust.context is context
        Path(certificate).write_bytes(renewed.pem)
        trust.look()
        assert trust.context is context
        assert "the key does not belong to the certificate" in caplog.text
        renewed.write(tmp_path, "us")
        trust.look()
        assert (await bench.call(request())).status == 200
        secure = backend.connections[-1].writer.get_extra_info("ssl_object")
        assert secure.getpeercert(binary_form=True) == renewed.der
        Path(tls.ca or "").unlink()
        trust.look()
        assert "ca.crt" in caplog.text
        assert (await bench.call(request())).status == 200


async def test_the_port_looks_at_the_files(tmp_path: Path) -> None:
    """From time to time, by itself."""
    server = Server.showing(OURS, tmp_path)
    ca = CA.write(tmp_path)
    async with secured(server, UpstreamTls(ca)) as (bench, _):
        pool = bench.port.pools["backend"]
        assert pool.tls is not None
        context = pool.tls.context
        OTHERS.write(tmp_path)
        pool.tick(bench.port.clock.monotonic() + 11)
        assert pool.tls.context is not context


def test_what_does_not_work_is_said(tmp_path: Path) -> None:
    """At the start; no byte of the files is in it."""
    ca = CA.write(tmp_path)
    certificate, key = US.write(tmp_path, "us")
    other = OURS.write(tmp_path, "other")[1]
    empty = tmp_path / "empty"
    empty.write_text("")
    for tls, words in (
        (UpstreamTls(str(empty)), "ca: there is no PEM certificate in it"),
        (UpstreamTls(ca, certificate, other), "does not belong to the certificate"),
        (UpstreamTls(ca, str(empty), key), "certificate: there is no PEM"),
    ):
        with pytest.raises(ValueError, match=words):
            Trust("orders", tls)
    with pytest.raises(OSError):
        Trust("orders", UpstreamTls(str(tmp_path / "missing")))


def test_a_file_changes_when_it_is_another_one(tmp_path: Path) -> None:
    """Also through a link, and when it comes and goes."""
    path = tmp_path / "a"
    link = tmp_path / "link"
    link.symlink_to(path)
    files = Files(str(link), None)
    assert not files.have_changed()
    path.write_text("1")
    assert files.have_changed()
    assert not files.have_changed()
    path.unlink()
    assert files.have_changed()
