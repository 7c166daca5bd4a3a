"""gateway.config.store_url: what a URL of [store] says, and what it may not say."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.store_url import MAX_HOSTS, StoreUrl, StoreUrlError, parse


def said(url: StoreUrl) -> dict[str, Any]:
    return {each.name: getattr(url, each.name) for each in fields(url)}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("redis://a", StoreUrl("one", (("a", 6379),))),
        ("redis://A:1/", StoreUrl("one", (("a", 1),))),
        ("redis://[::1]:7/3", StoreUrl("one", (("::1", 7),), db=3)),
        ("redis://[::1]", StoreUrl("one", (("::1", 6379),))),
        ("redis://u@a", StoreUrl("one", (("a", 6379),), username="u")),
        (
            "rediss://u:p%40:w@a/?ssl_ca_certs=/a%20b&ssl_certfile=/c&ssl_keyfile=/k",
            StoreUrl(
                "one",
                (("a", 6379),),
                tls=True,
                tls_files={
                    "ssl_ca_certs": "/a b",
                    "ssl_certfile": "/c",
                    "ssl_keyfile": "/k",
                },
                username="u",
                password="p@:w",
            ),
        ),
        ("unix:///run/a%20b", StoreUrl("one", (), "/run/a b")),
        (
            "unix://:p%2Fw@/run/a?db=2",
            StoreUrl("one", (), "/run/a", password="p/w", db=2),
        ),
        (
            "redis+sentinel://a,[::2]:1,c:26380/my.main-1",
            StoreUrl(
                "sentinel",
                (("a", 26379), ("::2", 1), ("c", 26380)),
                service="my.main-1",
            ),
        ),
        (
            "rediss+sentinel://u:p,w@a/main/4?ssl_ca_certs=/ca&sentinel_password=p%26+w",
            StoreUrl(
                "sentinel",
                (("a", 26379),),
                tls=True,
                tls_files={"ssl_ca_certs": "/ca"},
                username="u",
                password="p,w",
                db=4,
                service="main",
                sentinel_password="p&+w",
            ),
        ),
        (
            "redis+sentinel://a/main?sentinel_username=s",
            StoreUrl(
                "sentinel", (("a", 26379),), service="main", sentinel_username="s"
            ),
        ),
        ("redis+cluster://a", StoreUrl("cluster", (("a", 6379),))),
        (
            "rediss+cluster://:p@a:1,b/0",
            StoreUrl("cluster", (("a", 1), ("b", 6379)), tls=True, password="p"),
        ),
    ],
)
def test_a_url_says_where_the_store_is(text: str, meant: StoreUrl) -> None:
    """One server, the sentinels of a service, or some nodes of a cluster."""
    assert said(parse(text)) == said(meant)


def test_the_urls_of_the_page_are_such() -> None:
    """docs/revocation.md, with and without what stands in brackets."""
    page = Path(__file__).parents[2] / "docs" / "revocation.md"
    shown = re.findall(r"(?m)^\| `(\S+://\S+)` \|", page.read_text(encoding="utf-8"))
    assert len(shown) == 4
    for text in shown:
        some = text.replace(",...", "")
        short = parse(re.sub(r"\[.*?\]", "", some))
        long = parse(some.replace("[", "").replace("]", ""))
        assert (short.kind, short.hosts, short.service) == (
            *(long.kind, long.hosts),
            long.service,
        )
        assert (short.password, long.password) == ("", "password")


SHAPE = 'expected "memory", "redis://host:port/db"'
OPTION = "behind `?` stands something that is not taken"
SERVICE = "the name of the service"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", SHAPE),
        ("memory", SHAPE),
        ("http://:hunter2@a", SHAPE),
        ("redis://", SHAPE),
        ("redis:///1", SHAPE),
        ("redis://:hunter2", SHAPE),
        ("redis://:hun/ter2@a", SHAPE),
        ("redis://:hun?ter2@a", SHAPE),
        ("redis://:hunter2@@a", SHAPE),
        ("redis://:hunter2@a:0", SHAPE),
        ("redis://:hunter2@a:65536", SHAPE),
        ("redis://:hunter2@[g]", SHAPE),
        ("redis://:hunter2@a b", SHAPE),
        ("redis://:hunter2@a,b", SHAPE),
        ("redis://:hunter2@a/x", SHAPE),
        ("redis://:hunter2@a#x", SHAPE),
        ("redis+unix://:hunter2@a", SHAPE),
        ("unix://:hunter2@run/a", SHAPE),
        ("unix:///run/a?password=hunter2", SHAPE),
        ("redis+cluster://:hunter2@a,,b", SHAPE),
        ("redis+cluster://:hunter2@a/1", SHAPE),
        ("redis+cluster://" + ",".join("a" * (MAX_HOSTS + 1)), SHAPE),
        ("redis+sentinel://:hunter2@a", SERVICE),
        ("redis+sentinel://:hunter2@a/", SERVICE),
        ("redis+sentinel://:hunter2@a/hunter2/x", SERVICE),
        ("redis+sentinel://:hunter2@a/hunter2 x", SERVICE),
        ("redis://hunter2:12?ter2@a", OPTION),
        ("redis://:hunter2@a?hunter2=1", OPTION),
        ("redis://:hunter2@a?ssl_ca_certs=/a", OPTION),
        ("rediss://:hunter2@a?ssl_ca_certs=a", OPTION),
        ("rediss://:hunter2@a?ssl_ca_certs=", OPTION),
        ("rediss://:hunter2@a?ssl_ca_certs=/a&ssl_ca_certs=/b", OPTION),
        ("rediss://:hunter2@a?ssl_cert_reqs=none", OPTION),
        ("rediss://:hunter2@a?socket_timeout=60", OPTION),
        ("redis+cluster://a?sentinel_password=hunter2", OPTION),
        ("redis+sentinel://a/b?sentinel_password=", OPTION),
        ("redis+sentinel://a/b?sentinel_passwort=hunter2", OPTION),
    ],
)
def test_what_is_wrong_is_said_without_repeating_it(text: str, words: str) -> None:
    """There is a password in it, wherever somebody put it."""
    with pytest.raises(StoreUrlError) as caught:
        parse(text)
    assert words in caught.value.message
    whole = f"{caught.value}{caught.value!r}{caught.value.hint}"
    assert "hunter2" not in whole
    assert "ter2" not in whole


@given(st.text(max_size=60), st.sampled_from(["", "redis://", "redis+sentinel://a/"]))
def test_any_text_is_a_url_or_is_refused(text: str, start: str) -> None:
    """Never anything else."""
    try:
        made = parse(start + text)
    except StoreUrlError:
        return
    assert made.hosts or made.path


def test_a_url_is_not_shown() -> None:
    """Whoever logs it logs no password (R96)."""
    url = parse("redis+sentinel://u:hunter2@a/b?sentinel_password=hunter2")
    assert "hunter2" not in repr(url)
