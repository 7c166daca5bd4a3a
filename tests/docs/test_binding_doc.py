"""docs/binding.md: what it shows is done as it stands."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx2

from gateway.adapters import replays
from gateway.config.load import load
from gateway.tokens import confirmation, dpop
from tests.backends import echoing, running
from tests.certificates import Authority
from tests.site import AUDIENCE, POLICY, Site, url
from tests.tokens import make
from tests.tokens.proofs import jkt_of, proof_of

TEXT = Path(__file__).parents[2].joinpath("docs/binding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
KEY = make.key("ES256", "client")


def toml(start: str) -> str:
    """Return the one block that begins so."""
    (found,) = [text for kind, text in BLOCKS if kind == "toml" and start in text]
    return str(found)


async def test_the_route_takes_bound_tokens_alone(tmp_path: Path) -> None:
    """The route of the page, with the URL and the fields of the page."""
    server = toml("public_url").partition("\n")[2]
    (shown,) = [text for kind, text in BLOCKS if kind == "http"]
    names = [line.partition(":")[0] for line in shown.splitlines()[1:] if line]
    path = "/api/orders/customers/c-1/payments"
    (where,) = re.findall(r'"(https://[^"]+)"', server)
    async with running(echoing) as backend:
        site = Site(
            tmp_path,
            upstream=f"http://127.0.0.1:{backend.port}",
            server=server,
            policy=POLICY + "\n" + toml("orders.pay").replace('"mtls"', '"dpop"'),
        )
        async with (
            site.running() as gateway,
            httpx2.AsyncClient(base_url=url(gateway), trust_env=False) as http,
        ):
            token = site.token("c-1", aud=AUDIENCE, cnf={"jkt": jkt_of(KEY)})
            proof = proof_of(KEY, token, "POST", where + path, time.time())
            fields = {"Authorization": f"DPoP {token}", "DPoP": proof}
            good = await http.post(path, headers=fields)
            plain = await http.post(path, headers=site.bearer("c-1"))

    assert names == ["Host", *fields]
    assert (good.status_code, plain.status_code) == (200, 401)
    assert [entry.reason for entry in site.log] == [None, "binding.missing"]


def test_proxies_certificates_and_addresses_are_written_as_shown(
    tmp_path: Path,
) -> None:
    """Each loads, the proxy's with a TLS that asks for its certificate."""
    authority = Authority()
    authority.sign().write(tmp_path)
    authority.write(tmp_path)
    tls = """
[server.tls]
certificate = "file:tls.crt"
key         = "file:tls.key"
client      = "required"
client_ca   = "file:ca.crt"
"""
    server = toml("client_certificate").partition("\n")[2]
    service = 'upstream = "orders"\n'
    policy = POLICY.replace(service, service + toml('["bearer", "certificate"]'))
    policy = re.sub(
        r'owner +=\s"(\w+)"', r'owner = { param = "\1", issuer = "corp" }', policy
    )
    more = tls + toml("[certificates]")
    site = Site(tmp_path, server=server, more=more, policy=policy)
    path = site.write()
    line = 'algorithms  = ["ES256"]\n'
    text = path.read_text().replace(line, line + toml("address_claim"))
    path.write_text(text)
    settings = load([path], env={}).settings

    assert settings.server.client_certificate == "client-cert"
    corp = settings.issuers["corp"]
    assert (corp.address_claim, corp.subnet_v4, corp.subnet_v6) == ("ip", 32, 64)
    assert settings.certificates is not None
    assert list(settings.certificates.roles.values()) == [frozenset({"support"})]
    assert settings.issuers.keys() == {"corp", "certificates"}


def test_the_page_says_each_check_and_each_number() -> None:
    """What `at` may be, and how long, how many, how much."""
    source = Path(dpop.__file__).read_text(encoding="utf-8")
    checks = set(re.findall(r'_wrong\("(\w+)"\)', source))
    table = TEXT.partition("| at | check |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {each for cell in cells for each in re.findall(r"`(\w+)`", cell)} == checks
    for said in (
        f"not older than {dpop.WINDOW:.0f} s, nor more than {dpop.AHEAD:.0f} s ahead",
        f"1 to {dpop.MAX_ID} characters",
        f"of {dpop.MAX_PROOF // 1024} KiB at most",
        f"for {replays.LIFE:.0f} s, as digests",
        f"It keeps {replays.MAX_PROOFS:,} proofs",
        f"good for {dpop.SLOT // 60} to {dpop.SLOT // 30} minutes",
        f"a list of up to {confirmation.MAX_NETWORKS}",
    ):
        assert said in TEXT, said
