"""R2 through the whole gateway: no spelling of a framing field hides a request.

The same vectors run against the data port alone in tests/proxy. Here the hidden request
would be somebody's: it carries a credential that opens what it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests import vectors
from tests.e2e.house import House, closing

LAST = b"/public/last"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    with house.open():
        yield house


@pytest.mark.parametrize("shape", ["CL.TE", "TE.CL", "TE alone"])
def test_no_spelling_of_transfer_encoding_hides_a_request(
    house: House, shape: str
) -> None:
    """All 168 are refused and end the connection; the backend hears of nothing."""
    cases = vectors.load("smuggler-te/te_mutations.json")
    assert len(cases) > 150
    hidden = closing(b"/files/smuggled", house.alice.fields)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    body = chunk if shape == "TE.CL" else b"0\r\n\r\n" + hidden
    length = 4 if shape == "TE.CL" else len(body)
    lines = b"" if shape == "TE alone" else b"Content-Length: %d\r\n" % length
    for name, line in cases.items():
        head = b"POST /files/first HTTP/1.1\r\nHost: a\r\n%b%b%b\r\n\r\n" % (
            house.bob.fields,
            lines,
            line.encode("latin-1"),
        )
        logged = len(house.entries)
        said = house.say(head + body + b"\r\n" * 4 + closing(LAST))
        statuses = [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]
        assert statuses == [400], (name, said)
        assert b"connection: close" in said.lower(), name
        assert house.received() == [], name
        assert len(house.entries) == logged + 1, name


def test_one_spelling_is_read(house: House) -> None:
    """The vectors are refused for their spelling: what they are spellings of is not."""
    hidden = closing(b"/files/not-hidden", house.alice.fields)
    said = house.say(
        b"POST /files/first HTTP/1.1\r\nHost: a\r\n%b"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n%b" % (house.bob.fields, hidden)
    )
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", said) == [b"200", b"200"]
    first, second = house.received()
    assert (first.token_id, first.request.body) == (house.bob.token_id, b"")
    assert second.token_id == house.alice.token_id
