"""gateway.tokens.strict_json: one meaning, or none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens.strict_json import MAX_DEPTH, MAX_INTEGER, loads
from tests import vectors


def nested(depth: int, *, inside: bytes = b"1") -> bytes:
    """Return an object *depth* levels deep, itself included."""
    return b'{"a":' + b"[" * (depth - 1) + inside + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}),
        (b' {"a": 1} \n', {"a": 1}),
        (b'{"a":{"b":1},"b":1}', {"a": {"b": 1}, "b": 1}),
        ('{"å":"\\u00e5"}'.encode(), {"å": "å"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
        (b'{"a":-9007199254740992}', {"a": -MAX_INTEGER}),
        (b'{"a":1e300}', {"a": 1e300}),
        (b'{"a":"' + b"[" * 100 + b'"}', {"a": "[" * 100}),
        (b'{"a":"\\"' + b"[" * 100 + b'"}', {"a": '"' + "[" * 100}),
    ],
)
def test_reads_an_object(raw: bytes, value: Any) -> None:
    """What RFC 8259 leaves no doubt about is read as it says."""
    assert loads(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b'"a"', id="a string"),
        pytest.param(b"1", id="a number"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1}{"a":1}', id="two objects"),
        pytest.param(b'{"a":1,}', id="a comma too many"),
        pytest.param(b'{"a":1,"a":1}', id="a name twice"),
        pytest.param(b'{"a":1,"\\u0061":2}', id="a name twice, spelt differently"),
        pytest.param(b'{"b":[{"a":1,"a":2}]}', id="a name twice, deeper"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="Infinity"),
        pytest.param(b'{"a":-Infinity}', id="minus Infinity"),
        pytest.param(b'{"a":1e400}', id="beyond a double"),
        pytest.param(b'{"a":9007199254740993}', id="beyond 2**53"),
        pytest.param(b'{"a":-9007199254740993}', id="below -2**53"),
        pytest.param(b'{"a":' + b"9" * 5_000 + b"}", id="more digits than int takes"),
        pytest.param(b'{"a":01}', id="a leading zero"),
        pytest.param('{"a":"１"}'.encode()[:-3] + b"}", id="cut UTF-8"),
        pytest.param('{"a":１}'.encode(), id="full-width digits"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="a BOM"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"a":1}'.encode("utf-16-be"), id="UTF-16 without BOM"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', id="a surrogate in UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="half a pair"),
        pytest.param(b'{"a":["\\uDFFF"]}', id="the other half, deeper"),
        pytest.param(b'{"\\ud800":1}', id="half a pair as a name"),
        pytest.param(b'{"a":"\n"}', id="a control in a string"),
        pytest.param(b'{"a":"\\x41"}', id="an escape of another language"),
        pytest.param(nested(MAX_DEPTH + 1), id="one too deep"),
        pytest.param(nested(5_000), id="deeper than the stack"),
        pytest.param(b"[" * 100_000, id="without end"),
        pytest.param(b'{"a":"\\' + b"[" * 100, id="a string without end"),
        pytest.param(b'{"a":"' + b"[" * 100 + b"\\", id="an escape without end"),
    ],
)
def test_refuses(raw: bytes) -> None:
    """What two readers could take for two things is taken for nothing (R43)."""
    assert loads(raw) is None


def test_the_deepest_that_is_read() -> None:
    """32 levels, the outermost object included."""
    assert loads(nested(MAX_DEPTH)) is not None
    assert loads(nested(MAX_DEPTH, inside=b'"[[[["')) is not None


def test_agrees_with_the_parsing_suite() -> None:
    """JSONTestSuite: no n_*; every y_* that is an object and names nothing twice."""
    for case in vectors.load("json-test-suite/parsing.json"):
        raw = base64.b64decode(case["b64"])
        found = loads(raw)
        if case["name"].startswith("n_"):
            assert found is None, case["name"]
        elif case["name"].startswith("y_object") and "duplicated" not in case["name"]:
            assert found == json.loads(raw), case["name"]
        elif "duplicated" in case["name"]:
            assert found is None, case["name"]


OBJECTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-MAX_INTEGER, MAX_INTEGER)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(OBJECTS, st.booleans())
def test_what_was_written_is_what_is_read(value: dict[str, Any], ascii_: bool) -> None:
    """Whatever spelling of the characters the writer chose."""
    assert loads(json.dumps(value, ensure_ascii=ascii_).encode()) == value


@settings(deadline=None)
@given(st.binary() | st.text(alphabet='{}[]":,\\u0aedD8-+.eE ').map(str.encode))
def test_any_bytes_have_an_answer(raw: bytes) -> None:
    """An object that can be written again, or None; never an exception."""
    found = loads(raw)

    assert found is None or json.dumps(found, ensure_ascii=False).encode()
