"""gateway.observe.redact: whatever spelling a secret comes in, no part of it leaves."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.observe.redact import MASK, redact
from gateway.tokens.api_key import SECRET_BYTES, key_of

PART = 12  # characters of a secret that are too many

WORDS = "".join(chr(code) for code in range(0x21, 0x7F))  # visible ASCII
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

FIELDS = [
    *("Authorization", "authorization", "AUTHORIZATION", "Proxy-Authorization"),
    *("HTTP_AUTHORIZATION", "Cookie", "cookie", "Set-Cookie", "set_cookie"),
    *("DPoP", "X-API-Key", "x_api_key", "X-Shop-Api-Key", "X-Gateway-Assertion"),
]
PARAMETERS = [
    *("code", "state", "ticket", "token", "access_token", "refresh_token", "id_token"),
    *("client_secret", "password", "client_assertion", "api_key", "code_verifier"),
    *("device_code", "id_token_hint"),
]
Context = Callable[[str, str], str]


def twice(text: str) -> str:
    """JSON in JSON, as a log of a log has it."""
    return json.dumps({"line": text})


# How a field with any visible characters in its value is printed.
OF_A_FIELD: list[Context] = [
    lambda name, value: f"{name}: {value}",
    lambda name, value: f"{name}: Bearer {value}\r\nHost: a\r\n",
    lambda name, value: f"> {name}: {value}; a={value}, {value}",
    lambda name, value: f"{name}={value}",
    lambda name, value: repr({name: value, "host": "a"}),
    lambda name, value: repr({"host": "a", name: f"Bearer {value}"}),
    lambda name, value: repr({name.encode(): value.encode()}),
    lambda name, value: repr([(name.encode(), value.encode()), (b"host", b"a")]),
    lambda name, value: repr([[name, value], ["host", "a"]]),
    lambda name, value: repr({name: [value, value]}),
    lambda name, value: repr({name: (value.encode(), b"x")}),
    lambda name, value: repr({name: {"sid": value}}),
    lambda name, value: repr(f"GET / HTTP/1.1\r\n{name}: {value}\r\n\r\n".encode()),
    lambda name, value: json.dumps({name: value}),
    lambda name, value: json.dumps({name: [value]}, indent=2),
    lambda name, value: json.dumps({"name": name, "value": value}),
    lambda name, value: f"Header(name={name.encode()!r}, value={value.encode()!r})",
    lambda name, value: f"curl -H {f'{name}: {value}'!r} http://a/",
    lambda name, value: twice(json.dumps({name: value})),
    lambda name, value: twice(repr({name: value})),
    lambda name, value: twice(twice(json.dumps({name: value}))),
]
# How a parameter is.
OF_A_PARAMETER: list[Context] = [
    lambda name, value: f"GET /cb?{name}={quote(value, safe='')}&x=1 HTTP/1.1",
    lambda name, value: f"/cb?a=b&{name}={quote(value)}#x",
    lambda name, value: f"https://a.example/cb#{name}={quote(value)}",
    lambda name, value: f"/login?next={quote(f'/cb?{name}={quote(value)}', safe='')}",
    lambda name, value: f"/l?n={quote(quote(f'/cb?{name}={value}', safe=''), safe='')}",
    lambda name, value: f"a=b&{name}={quote(value, safe='')}",
    lambda name, value: json.dumps({name: value, "x": 1}),
    lambda name, value: json.dumps({name: value}, separators=(",", ":")),
    lambda name, value: json.dumps({"x": {name: [value]}}, indent=1),
    lambda name, value: repr({name: value, "x": 1}),
    lambda name, value: repr({name: [value, value]}),
    lambda name, value: repr([(name, value), ("x", "1")]),
    lambda name, value: repr({name.encode(): value.encode()}),
    lambda name, value: f"Client({name}={value!r}, x=1)",
    lambda name, value: f"{name}=x{value.replace('&', '')} x",
    lambda name, value: twice(json.dumps({name: value})),
    lambda name, value: twice(f"/cb?{name}={quote(value, safe='')}"),
]


def parts(secret: str) -> set[str]:
    return {secret[at : at + PART] for at in range(len(secret) - PART + 1)}


def spellings(secret: str) -> set[str]:
    """Return what a secret looks like where it has been escaped."""
    once = json.dumps(secret)[1:-1]
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        repr(secret)[1:-1],
        once,
        json.dumps(once)[1:-1],
    }


def assert_gone(secret: str, text: str) -> None:
    left = redact(text)
    for spelling in spellings(secret):
        for part in parts(spelling):
            assert part not in left, (text, left)


@pytest.mark.parametrize("context", OF_A_FIELD)
@given(name=st.sampled_from(FIELDS), secret=st.text(WORDS, min_size=20, max_size=40))
@settings(deadline=None, max_examples=40)
def test_no_part_of_a_fields_value_is_left(
    context: Context, name: str, secret: str
) -> None:
    """Not even if the value holds quotes, backslashes, commas and braces."""
    assert_gone(secret, f"request failed: {context(name, secret)}")


@pytest.mark.parametrize("context", OF_A_PARAMETER)
@given(
    name=st.sampled_from(PARAMETERS), secret=st.text(WORDS, min_size=20, max_size=40)
)
@settings(deadline=None, max_examples=40)
def test_no_part_of_a_parameters_value_is_left(
    context: Context, name: str, secret: str
) -> None:
    """In queries, forms, JSON, and what `repr` makes of them."""
    assert_gone(secret, f"callback {context(name, secret)}")


AWKWARD = [
    "0123456789abcdef" + end
    for end in ("\\", "\\\\", "'", '"', "\\'", '\\"', "'\"", "',", "'\"\\", '"}', "']")
] + ["'", "\\", '"0123456789abcdef', "['0123456789abcdef", "a'b\"c\\'d\\\"0123456789ab"]


@pytest.mark.parametrize("secret", AWKWARD)
def test_no_quote_or_backslash_ends_a_secret_early(secret: str) -> None:
    """The end of a literal, and what only looks like it."""
    for context in OF_A_FIELD:
        for name in FIELDS:
            assert_gone(secret, context(name, secret))
    for context in OF_A_PARAMETER:
        for name in PARAMETERS:
            assert_gone(secret, context(name, secret))


@given(
    before=st.text("\"'<>()[]{}:;,=&/?@! \n", max_size=20),
    header=st.text(BASE64URL, min_size=20, max_size=30),
    payload=st.text(BASE64URL, min_size=20, max_size=60),
    signature=st.text(BASE64URL, min_size=20, max_size=60),
    after=st.sampled_from(["", " ", '"', "'", "\n", "}", "&x=1", "="]),
)
@settings(deadline=None)
def test_a_jwt_is_known_wherever_it_stands(
    before: str, header: str, payload: str, signature: str, after: str
) -> None:
    """In a path, in prose, in an exception: three parts, or five, or only one."""
    token = f"eyJ{header}.{payload}.{signature}"
    for text in (token, f"{token}.{payload}.{signature}", f"eyJ{header}"):
        left = redact(f"{before}{text}{after}")
        for part in parts(header) | parts(payload) | parts(signature):
            assert part not in left


@pytest.mark.parametrize(
    "context",
    [
        "{}",
        "GET /a?k={}&b=1",
        "cannot read {}: no",
        "/nowhere/{}",
        "b'{}'",
        '{{"name": "{}"}}',
        "https://a/{}#x",
    ],
)
def test_an_api_key_is_known_wherever_it_stands(context: str) -> None:
    """Whole, encoded or cut short; what stays is the prefix, which says what it was."""
    key = key_of("shop", "0123456789ab", bytes(range(SECRET_BYTES)))
    for written in (key, key.replace("_", "%5F"), key[:-20], key[:-1], key + "x"):
        left = redact(context.format(written))
        assert "shop" + MASK in left
        assert "0123456789ab" not in left
        assert not any(written[at : at + PART] in left for at in range(5, 40))


@pytest.mark.parametrize(
    "start", ["ewogICJhbGciOi", "eyAiYWxnIjogIk", "ewoJImFsZyI6", "ew0KICJhbGci"]
)
def test_a_jwt_with_white_space_in_its_header_is_one(start: str) -> None:
    """JSON may begin with `{` and a line end."""
    assert redact(f"bad {start}abcdef.c2VjcmV0c2Vj.cmV0c2VjcmV0 x") == (
        "bad [redacted] x"
    )


@given(secret=st.text(WORDS, min_size=20, max_size=40))
@settings(deadline=None)
def test_a_url_keeps_its_host_and_loses_its_password(secret: str) -> None:
    """Also where the password should have been escaped and was not."""
    safe = quote(secret, safe="")
    for text in (
        f"redis://:{safe}@redis.internal:6379/0 refused",
        f"rediss://gateway:{safe}@redis.internal refused",
        f"unix://u:{safe}@/run/redis.sock refused",
        f"redis+sentinel://:{safe}@a:1,b:2/master refused",
        f"https://u:{safe}@a.example/x?y=z refused",
        f"'url': 'redis://:{safe}@redis.internal', refused",
    ):
        assert_gone(secret, text)
        assert "refused" in redact(text)
    bare = secret.replace('"', "").replace("'", "").replace("<", "").replace(">", "")
    assert_gone(bare, f"redis://:{bare}@redis.internal:6379/0 refused")


@given(secret=st.text(BASE64URL + "+/", min_size=64, max_size=400))
@settings(deadline=None)
def test_a_pem_block_is_gone(secret: str) -> None:
    """Whole or cut off, with real line ends or those of `repr`."""
    lines = "\n".join(secret[at : at + 64] for at in range(0, len(secret), 64))
    block = f"-----BEGIN EC PRIVATE KEY-----\n{lines}\n-----END EC PRIVATE KEY-----"
    for text in (block, repr(block), repr(block.encode()), block[:-30]):
        left = redact(f"key {text} end")
        for line in lines.split("\n"):
            for part in parts(line):
                assert part not in left


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BASIC", "DPoP"])
def test_a_credential_is_known_by_its_scheme(scheme: str) -> None:
    """Without the name of a field before it, too."""
    assert "opaque" not in redact(f"got {scheme} opaque-0123456789/+= from a peer")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("gAAAAABl" + "x" * 60 + "==", "[redacted]"),
        ('{"kty":"EC","x":"abc","d":"870MB6gfuTJ4HtUnUvYMy"}',
         '{"kty":"EC","x":"abc","d":"[redacted]"}'),
        ("<Cookie sid=0123456789 for a.example/>", "<cookie [redacted]"),
        ("token=[redacted]", "token=[redacted]"),
        ("/cb?code=4711&page=2", "/cb?code=[redacted]&page=2"),
        ("{'code': ['4711'], 'page': ['2']}", "{'code': [redacted], 'page': ['2']}"),
        ('{"password":12345678,"x":1}', '{"password":[redacted]'),
    ],
)  # fmt: skip
def test_what_is_left_can_be_read(text: str, left: str) -> None:
    """The name stays, and mostly what comes after the value."""
    assert redact(text).lower() == left.lower()


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/orders/7 200",
        "status code: 404, state of the socket: open",
        "Cookie, Authorization and DPoP are removed before forwarding",
        "revocation store is away: TimeoutError",
        "orders.toml:36:12: unknown permission orders:cancl_any",
        'File "/app/gateway/tokens/jwt.py", line 12, in authenticate',
        "https://a.example/x?page=2 mailto:bob@example.com",
        "author@example.com wrote the code",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """A log that says nothing is not safe, it is useless."""
    assert redact(text) == text


MEGABYTE = 1_000_000


def hostile() -> dict[str, str]:
    dice = random.Random(3)
    chunks = [
        *(
            "eyJ",
            "ey",
            "ew",
            "token",
            "=",
            ":",
            "'",
            '"',
            "\\",
            "[",
            "{",
            "(",
            ",",
            " ",
        ),
        *("authorization", "cookie", "code", "://", "@", "bearer ", "\n", "%3d", "."),
        *("-----BEGIN A-----", "value", "password", "redis://", "a", "b'", "gAAAAA"),
        *("x-", "-key", "gw_", "0123456789ab_", "0123456789abcdefghijklmnop"),
    ]
    made = {
        chunk.strip() or "space": chunk * (MEGABYTE // len(chunk)) for chunk in chunks
    }
    for first in ("authorization: '", "cookie=[", "cookie=['a' ", "token=['", "://a@"):
        made[first] = first * (MEGABYTE // len(first))
        made[f"{first} then quotes"] = first + '\\"' * (MEGABYTE // 2)
        made[f"{first} then space"] = first + " " * MEGABYTE
        made[f"{first} then lines"] = first + "\n" * MEGABYTE
    made["a mixture"] = "".join(dice.choices(chunks, k=MEGABYTE // 4))
    return made


@pytest.mark.parametrize(("text"), hostile().values(), ids=list(hostile()))
def test_no_input_makes_redaction_slow(text: str) -> None:
    """A megabyte of anything takes less than a second: the cost is linear."""

    def seconds() -> float:
        start = time.thread_time()
        redact(text)
        return time.thread_time() - start

    # Another chance, because a neighbour on the same core counts as ours.
    assert any(seconds() < 1.0 for _ in range(3))
