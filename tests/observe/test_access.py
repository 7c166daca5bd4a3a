"""gateway.observe.access: one line for each request, whatever is in it."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import ANONYMOUS, Principal
from gateway.observe import access
from gateway.observe.access import (
    CUT,
    FIELDS,
    MAX_FIELD,
    PRINCIPAL_FIELDS,
    RARE_FIELDS,
    Entry,
    shown,
    to_colour,
    to_json,
)
from tests import vectors

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "log.md"
ALICE = Principal(
    "user",
    "corp",
    "c-1",
    client_id="web",
    token_id="5f0c",
    roles=frozenset({"customer"}),
)
ENTRY = Entry(
    time=1_795_428_000.125,
    request_id="0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    method="GET",
    host="api.shop.example",
    route="orders.list",
    path="/api/orders/customers/c-1/orders",
    status=200,
    decision="permit",
    principal=ALICE,
    generation="a1b2c3d4e5f6",
    upstream="orders",
    bytes_out=512,
    ms=2.5,
    upstream_ms=2.25,
    client="10.1.2.3",
    token_hash="0123456789abcdef",
)
DENIED = ENTRY._replace(
    path="/api/orders/customers/c-2/orders",
    status=403,
    decision="deny",
    reason="condition.failed:owner",
    upstream=None,
    bytes_out=187,
    ms=0.25,
    upstream_ms=None,
)
OUTAGE = DENIED._replace(
    path=ENTRY.path,
    status=503,
    decision="outage",
    reason="revocation store",
    bytes_out=160,
    ms=150.25,
)
ERROR = Entry(
    time=ENTRY.time,
    request_id=ENTRY.request_id,
    method="GET",
    host="api.shop.example",
    path="/api/orders",
    status=500,
    generation="a1b2c3d4e5f6",
    bytes_out=140,
    ms=0.125,
    client="10.1.2.3",
)


def read(entry: Entry) -> dict[str, Any]:
    line = to_json(entry)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    read: dict[str, Any] = json.loads(line)
    return read


def test_the_reference_names_every_field_and_no_other() -> None:
    """docs/log.md is what is emitted."""
    text = DOCUMENT.read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE)
    of_principal = [f"principal.{name}" for name in PRINCIPAL_FIELDS]
    at = FIELDS.index("principal") + 1
    assert documented == [
        *FIELDS[:at],
        *of_principal,
        *FIELDS[at:],
        *RARE_FIELDS,
    ]

    emitted = read(ENTRY)
    assert tuple(emitted) == FIELDS
    assert tuple(emitted["principal"]) == PRINCIPAL_FIELDS
    assert {*Entry._fields} - {"form"} == {*FIELDS, *RARE_FIELDS}


def test_an_old_mirror_that_decided_stands_at_the_end() -> None:
    """In seconds; no other line has room for it."""
    line = to_json(ENTRY._replace(revocation_age=2.34567)).decode()

    assert line == to_json(ENTRY).decode().replace("}\n", ',"revocation_age":2.346}\n')


def test_the_reference_shows_lines_as_they_are() -> None:
    """Each of its examples is the line of a request."""
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = re.findall(r"^\{\"time.*\}$", text, re.MULTILINE)

    made = [to_json(entry).decode() for entry in (ENTRY, DENIED, OUTAGE, ERROR)]
    assert [f"{line}\n" for line in lines] == made


@pytest.mark.parametrize("who", [None, ANONYMOUS])
def test_nobody_is_null(who: Principal | None) -> None:
    """A public route and a caller without a token have no principal to show."""
    assert read(ENTRY._replace(principal=who))["principal"] is None


def test_what_is_not_known_is_null() -> None:
    """An entry can be written as soon as it has been begun."""
    line = read(Entry(time=0.0, request_id="x"))

    assert line["time"] == "1970-01-01T00:00:00.000Z"
    assert line["decision"] == "error"
    assert [name for name, value in line.items() if value is None] == [
        *("trace_id", "route", "status", "reason", "principal", "generation"),
        *("upstream", "upstream_ms", "token_hash"),
    ]
    assert (
        read(ENTRY._replace(principal=replace(ALICE, client_id=None)))["principal"][
            "client_id"
        ]
        is None
    )


ANYTHING = st.text(st.characters(), max_size=60)


@given(
    path=ANYTHING.map(lambda text: text.replace("=", "").replace(":", "")),
    host=ANYTHING,
    subject=ANYTHING,
    role=ANYTHING,
    reason=ANYTHING,
)
@settings(deadline=None)
def test_a_line_is_one_line_and_reads_as_it_was(
    path: str, host: str, subject: str, role: str, reason: str
) -> None:
    """Controls, bidi marks, quotes and surrogates are escaped, not obeyed (R97)."""
    path = path.replace("%3", "")
    who = replace(ALICE, subject=subject, roles=frozenset({role}))
    entry = ENTRY._replace(path=path, host=host, reason=reason, principal=who)

    line = to_json(entry)

    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    found = read(entry)
    assert (found["path"], found["host"], found["reason"]) == (path, host, reason)
    assert found["principal"]["subject"] == subject
    assert found["principal"]["roles"] == [role]


def test_naughty_strings_make_no_second_line() -> None:
    """As names, roles, paths and user agents come from outside."""
    for text in vectors.load("naughty-strings/blns.json"):
        who = replace(ALICE, subject=text, token_id=text, roles=frozenset({text}))
        entry = ENTRY._replace(path=text, host=text, method=text, principal=who)
        assert read(entry)["host"] == text
        assert "\x1b" not in to_colour(entry).replace("\x1b[", "[")
        assert not any(
            unicodedata.category(character) in {"Cc", "Cf"}
            for character in re.sub(r"\x1b\[\d*m", "", to_colour(entry))
        )


@pytest.mark.parametrize(
    "long",
    ["x" * 5_000, "é" * 5_000, "\x00" * 5_000, "\U0001f600" * 5_000, '"\\' * 3_000],
)
def test_no_field_takes_more_than_two_kibibytes(long: str) -> None:
    """As written, escapes included; it shows that it was cut (R97)."""
    who = replace(
        ALICE,
        subject=long,
        token_id=long,
        roles=frozenset(f'{number:04},"' for number in range(2_000)) | {long[:900]},
    )
    texts = ("request_id", "method", "host", "path", "route", "reason", "upstream")
    entry = ENTRY._replace(principal=who)
    entry = entry._replace(
        request_id=long,
        method=long,
        host=long,
        path=long,
        route=long,
        reason=long,
        upstream=long,
    )

    found = read(entry)

    for name in texts:
        assert found[name].endswith(CUT)
        assert len(json.dumps(found[name])) <= MAX_FIELD
    assert len(json.dumps(found["principal"]["subject"])) <= MAX_FIELD
    roles = found["principal"]["roles"]
    assert len(json.dumps(roles, separators=(",", ":"))) <= MAX_FIELD
    assert roles[-1] == CUT
    assert set(roles[:-1]) <= who.roles


def test_a_role_that_is_too_long_is_cut_with_the_rest() -> None:
    """One of 5,000 characters leaves no room for itself."""
    who = replace(ALICE, roles=frozenset({"r" * 5_000, "a" * 5_000}))

    assert read(ENTRY._replace(principal=who))["principal"]["roles"] == [CUT]


@pytest.mark.parametrize(
    ("target", "allowed", "path"),
    [
        (b"/a/b%20c", frozenset[str](), "/a/b%20c"),
        (b"/a?page=2&token=x", frozenset[str](), "/a"),
        (b"/a?page=2&token=x", frozenset({"page"}), "/a?page=2"),
        (b"/a?page=2&token=x&p%61ge=3", frozenset({"page"}), "/a?page=2&p%61ge=3"),
        (b"/a?token=x", frozenset({"page"}), "/a"),
        (b"/a?page", frozenset({"page"}), "/a?page"),
        (b"/a#access_token=x?page=1", frozenset({"page"}), "/a"),
        (b"/a?page=1#access_token=x", frozenset({"page"}), "/a?page=1"),
        (b"/\xff?page=\xfe", frozenset({"page"}), "/\\xff?page=\\xfe"),
        (b"", frozenset({"page"}), ""),
    ],
)
def test_a_query_is_shown_only_for_names_that_are_allowed(
    target: bytes, allowed: frozenset[str], path: str
) -> None:
    """Values of a query are the user's affair, if not a secret."""
    assert shown(target, allowed) == path


JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlc2ln"


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        (f"/reset/{JWT}", "/reset/[redacted]"),
        ("/cb?code=0123456789abcdef&page=2", "/cb?code=[redacted]&page=2"),
        ("/a%3Fcode%3D0123456789abcdef", "/a%3Fcode%3D[redacted]"),
        ("/go/redis://:hunter2@a/0", "/go/redis://[redacted]@a/0"),
        ("/a;b=c/d:e", "/a;b=c/d:e"),
        ("/t/gAAAAABl" + "a" * 60, "/t/[redacted]"),
    ],
)
def test_a_secret_in_a_path_is_removed(path: str, logged: str) -> None:
    """Some applications put one there."""
    assert read(ENTRY._replace(path=path))["path"] == logged


def test_a_token_is_removed_from_any_field() -> None:
    """However it got there, the line stays JSON."""
    who = replace(ALICE, subject=JWT, client_id=f'"{JWT}"', roles=frozenset({JWT}))
    entry = ENTRY._replace(host=JWT, reason=JWT, principal=who)

    found = read(entry)

    assert found["host"] == found["reason"] == "[redacted]"
    assert found["principal"]["client_id"] == '"[redacted]"'
    assert b"eyJ" not in to_json(entry)


PLAIN = re.compile(r"\x1b\[\d*m")


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (ENTRY, f"200 GET {ENTRY.path} c-1@corp orders.list 2.5 ms"),
        (DENIED, f"403 GET {DENIED.path} c-1@corp deny: condition.failed:owner"),
        (OUTAGE, f"503 GET {OUTAGE.path} c-1@corp outage: revocation store"),
        (ERROR, "500 GET /api/orders error: -"),
        (
            ENTRY._replace(status=502, reason="refused"),
            f"502 GET {ENTRY.path} c-1@corp orders.list 2.5 ms permit: refused",
        ),
        (
            ENTRY._replace(status=None, route=None, principal=ANONYMOUS),
            f"--- GET {ENTRY.path} - 2.5 ms",
        ),
        (
            DENIED._replace(path=f"/reset/{JWT}"),
            "403 GET /reset/[redacted] c-1@corp deny: condition.failed:owner",
        ),
    ],
)
def test_a_developer_reads_one_coloured_line(entry: Entry, end: str) -> None:
    """With the reason of a denial, which the client is not told."""
    line = to_colour(entry)

    assert line.startswith("\x1b[")
    assert line.endswith("\x1b[0m")
    assert re.fullmatch(r"\d\d:\d\d:\d\d " + re.escape(end), PLAIN.sub("", line))


def test_the_place_of_a_request_is_said_once_and_what_is_kept_is_short() -> None:
    """Many callers ask for a few things; paths that a client invents are bounded."""
    access._place.cache_clear()
    who = replace(ALICE, subject="c-2")
    lines = [to_json(ENTRY), to_json(ENTRY._replace(principal=who))]
    long = [ENTRY._replace(path=f"/{'a' * 300}/{number}") for number in range(3)]
    lines += [to_json(each) for each in long]

    kept = access._place.cache_info()
    assert (kept.hits, kept.currsize) == (1, 1)
    said = [json.loads(line) for line in lines]
    assert [each["principal"]["subject"] for each in said[:2]] == ["c-1", "c-2"]
    assert [each["path"] for each in said] == [
        *[ENTRY.path] * 2,
        *[each.path for each in long],
    ]
