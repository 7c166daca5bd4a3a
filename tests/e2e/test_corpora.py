"""Public corpora through a whole gateway: odd JSON in signed tokens, naughty strings.

Never a 5xx, never a field at the backend that is not ours or the client's own, and what
is let through arrives as it was: in the assertion, and in the plain copy by the rule of
docs/identity.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest

from tests import vectors
from tests.e2e.house import HOST, Arrival, House, closing
from tests.proxy.harness import Answer
from tests.site import Site
from tests.tokens import make

JSON_SUITE = "json-test-suite/parsing.json"
NAUGHTY = "naughty-strings/blns.json"
# The names that a plain GET with a token arrives with, whatever is in the token.
NAMES = [
    *("host", "x-auth-request-user", "x-forwarded-for", "x-forwarded-host"),
    *("x-forwarded-proto", "x-gateway-assertion", "x-request-id", "traceparent"),
]


class AnyRole(Site):
    """A site that knows every naughty string as a role, which may do nothing much."""

    def write(self) -> Path:
        names = [_toml(each) for each in vectors.load(NAUGHTY) if each]
        self.policy = self.policy.replace(
            "[permissions]", '[permissions]\n"orders:odd" = "No route asks for it"'
        )
        for name in dict.fromkeys(names):
            self.policy += f'[roles.{name}]\npermissions = ["orders:odd"]\n'
        super().write()
        text = self.config.read_text(encoding="utf-8")
        allow = f'allow = ["customer", "support", {", ".join(names)}]'
        text = text.replace('allow = ["customer", "support"]', allow)
        self.config.write_text(text, encoding="utf-8")
        return self.config


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    vectors.path(NAUGHTY)
    vectors.path(JSON_SUITE)
    house = House(tmp_path_factory.mktemp("house"), site=AnyRole)
    with house.open():
        yield house


def _get(house: House, token: str, target: bytes = b"/me/x") -> Answer:
    return house.call(closing(target, b"authorization: Bearer %b\r\n" % token.encode()))


def _arrived(house: House, answer: Answer) -> Arrival | None:
    """Return what arrived if *answer* is a 200; nothing did otherwise."""
    arrived = house.received()
    if answer.status == 200:
        (each,) = arrived
        return each
    assert arrived == []
    assert 400 <= answer.status < 500, answer
    return None


def _names(each: Arrival) -> list[str]:
    return sorted(name.decode() for name, _ in each.request.headers)


# JSON


def _as_payload(house: House, raw: bytes) -> str:
    return make.sign(house.site.key, _header(house), raw)


def _as_header(house: House, raw: bytes) -> str:
    return make.sign(house.site.key, raw or b" ", _payload(house))


def _in_payload(house: House, raw: bytes) -> str:
    whole = _payload(house)[:-1] + b',"odd":' + raw + b"}"
    return make.sign(house.site.key, _header(house), whole)


def _in_header(house: House, raw: bytes) -> str:
    whole = _header(house)[:-1] + b',"odd":' + raw + b"}"
    return make.sign(house.site.key, whole, _payload(house))


def _header(house: House) -> bytes:
    fields = {"alg": "ES256", "typ": "at+jwt", "kid": house.site.key.key_id}
    return json.dumps(fields).encode()


def _payload(house: House) -> bytes:
    return base64.urlsafe_b64decode(house.alice.token.split(".")[1] + "==")


def _is_strict(name: str) -> bool:
    """Tell whether R43 takes it: no name twice, and numbers below 2^53."""
    return "duplicated" not in name and "double_close_to_zero" not in name


@pytest.mark.parametrize("place", [_as_payload, _as_header, _in_payload, _in_header])
def test_signed_json_is_strict_json_or_401(house: House, place: Any) -> None:
    """R43: a good signature vouches for no other reading; and never a 5xx."""
    passed = set()
    for case in vectors.load(JSON_SUITE):
        name = case["name"]
        token = place(house, base64.b64decode(case["b64"]))
        each = _arrived(house, _get(house, token))
        if each is not None:
            assert each.claims is not None
            assert each.claims["sub"] == "alice"
            assert _names(each) == sorted([*NAMES, "x-roles"])
            passed.add(name)
    assert not {name for name in passed if name.startswith("n_")}
    wanted = {
        case["name"]
        for case in vectors.load(JSON_SUITE)
        if case["name"].startswith("y_") and _is_strict(case["name"])
    }
    if place in {_in_payload, _in_header}:
        assert wanted - passed == set()
    else:
        assert passed == set()  # none of them names an issuer, or an algorithm


# Naughty strings


def _decoded(value: bytes) -> str:
    """Undo the rule of docs/identity.md: a percent-decoder, and nothing else."""
    return unquote_to_bytes(value).decode("utf-8")


def _listed(value: bytes) -> list[str]:
    """Split first, then decode."""
    return [_decoded(item) for item in value.split(b",")]


def test_a_naughty_subject_arrives_as_it_is_or_not_at_all(house: House) -> None:
    """R95: equal in the assertion and in the copy, and there is no line beside them."""
    arrived = 0
    for text in vectors.load(NAUGHTY):
        token = house.site.token(text, jti="t-naughty")
        each = _arrived(house, _get(house, token))
        if each is None:
            continue
        arrived += 1
        assert each.claims is not None
        assert each.claims["sub"] == text
        assert _decoded(each.request.value(b"x-auth-request-user")) == text
        assert _names(each) == sorted([*NAMES, "x-roles"])
        assert each.entry.principal is not None
        assert each.entry.principal.subject == text
    assert arrived > 350


def test_naughty_roles_and_claims_arrive_as_they_are_or_not_at_all(
    house: House,
) -> None:
    """R95: also as items of a list, where a comma is one of the item's characters."""
    arrived = 0
    for text in vectors.load(NAUGHTY):
        token = house.site.token(
            "carol", text, "customer", team=text, teams=[text, "a,b", ""]
        )
        each = _arrived(house, _get(house, token, b"/files/x"))
        if each is None:
            continue
        arrived += 1
        assert each.claims is not None
        roles = sorted({text, "customer"} - {""})
        assert each.claims["roles"] == roles
        assert _listed(each.request.value(b"x-roles")) == roles
        assert each.claims["team"] == text
        assert _decoded(each.request.value(b"x-team")) == text
        assert each.claims["teams"] == [text, "a,b", ""]
        assert _listed(each.request.value(b"x-teams")) == [text, "a,b", ""]
        assert _names(each) == sorted([*NAMES, "x-roles", "x-team", "x-teams"])
    assert arrived > 500


def test_a_naughty_role_grants_nothing(house: House) -> None:
    """R85: roles are exact strings; none of these is one that the policy knows."""
    for text in vectors.load(NAUGHTY):
        token = house.site.token("carol", text, scope=text)
        answer = _get(house, token, b"/files/x")
        assert _arrived(house, answer) is None
        assert answer.status in {401, 403}


def test_a_naughty_header_value_is_one_value(house: House) -> None:
    """As raw UTF-8: refused, or the same bytes in the one field that they were."""
    arrived = 0
    for text in vectors.load(NAUGHTY):
        raw = text.encode("utf-8", "surrogatepass")
        answer = house.call(
            closing(b"/me/x", b"x-note: %b\r\n%b" % (raw, house.alice.fields))
        )
        each = _arrived(house, answer)
        if each is None:
            continue
        arrived += 1
        assert each.request.value(b"x-note") == raw.strip(b" \t")
        assert _names(each) == sorted([*NAMES, "x-roles", "x-note"])
    assert arrived > 480


@pytest.mark.parametrize("place", ["segment", "query"])
@pytest.mark.parametrize("spelling", ["raw", "encoded"])
def test_a_naughty_target_arrives_as_it_is_or_not_at_all(
    house: House, place: str, spelling: str
) -> None:
    """R10: whatever is in it, it is no second line and no other target."""
    arrived = 0
    for text in vectors.load(NAUGHTY):
        raw = text.encode("utf-8", "surrogatepass")
        if spelling == "encoded":
            raw = quote(raw, safe="").encode()
        target = b"/me/" + raw if place == "segment" else b"/me/x?q=" + raw
        each = _arrived(house, house.call(closing(target, house.alice.fields)))
        if each is None:
            continue
        arrived += 1
        # Blanks before the version are no part of the target, if they are anything.
        assert each.request.target == target.rstrip(b" ")
        assert each.token_id == house.alice.token_id
        assert _names(each) == sorted([*NAMES, "x-roles"])
    assert arrived > 100


def test_a_naughty_credential_is_refused_in_one_shape(house: House) -> None:
    """I5: as a token, as a whole Authorization field, as a cookie, as a Host."""
    for text in vectors.load(NAUGHTY):
        raw = text.encode("utf-8", "surrogatepass")
        for fields in (
            b"authorization: Bearer %b\r\n" % raw,
            b"authorization: %b\r\n" % raw,
            b"cookie: %b\r\n" % raw,
        ):
            answer = house.call(closing(b"/me/x", fields))
            assert _arrived(house, answer) is None
            assert answer.status in {400, 401}, (fields, answer)
            assert json.loads(answer.body)["status"] == answer.status
        answer = house.call(closing(b"/me/x", house.alice.fields, host=raw or HOST))
        each = _arrived(house, answer)
        assert each is None or each.request.value(b"host") == (raw.strip() or HOST)
