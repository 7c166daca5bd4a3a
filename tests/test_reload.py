"""gateway.reload: what may take the place of the configuration in force."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.asgi.probes import Check
from gateway.config.load import Loaded
from gateway.config.settings import Address, Admin
from gateway.observe.metrics import RELOADS
from gateway.reload import Reloads, checks_of_life, read_again, unchangeable, worse
from tests.site import Site


async def test_a_good_configuration_is_read_by_a_thread_that_is_gone_then(
    tmp_path: Path,
) -> None:
    """A fork that follows copies one thread, so there must be one."""
    site = Site(tmp_path)
    before = site.load()
    threads: list[threading.Thread] = []

    def reread() -> Loaded:
        threads.append(threading.current_thread())
        return site.load()

    loaded, refused = await read_again(reread, before.settings)

    assert loaded is not None
    assert refused == ""
    assert threads[0] is not threading.main_thread()
    assert not threads[0].is_alive()


async def test_a_bad_one_is_logged_whole_and_shown_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line is for /readyz?verbose, and names the first place."""
    site = Site(tmp_path)
    before = site.load()
    site.server = 'max_hed = "16 KiB"\nworkers = 70'

    loaded, refused = await read_again(site.load, before.settings)

    assert loaded is None
    assert "gateway.toml:" in refused
    assert "\n" not in refused
    assert "max_hed" in caplog.text
    assert "workers" in caplog.text


def test_what_was_opened_for_life_is_named(tmp_path: Path) -> None:
    """Everything else may change."""
    old = Site(tmp_path).load().settings
    other = Address("127.0.0.1", 9)
    listening = replace(old.server, listen=(other,))
    token = Admin(Address("127.0.0.1", 9), "0123456789abcdef")

    for new, named in (
        (old, ""),
        (replace(old, server=replace(old.server, max_head=2048)), ""),
        (replace(old, server=listening), "[server] listen"),
        (replace(old, server=replace(old.server, workers=2)), "[server] workers"),
        (replace(old, probes=other, admin=token), "[probes], [admin]"),
    ):
        assert unchangeable(old, new).rpartition("to change ")[2] == named


def test_a_trouble_that_nobody_had_before_is_one() -> None:
    """One that is there already is no reason against the new configuration."""
    keys, store = Check("keys", "away"), Check("store", "away")
    good = [Check("keys"), Check("store")]

    assert worse(good, good) == ""
    assert worse([keys, store], [keys, store]) == ""
    assert worse([keys, store], good) == ""
    assert worse([keys, Check("store")], [keys, store]) == "store: away"
    assert worse([], [keys, store]) == "keys: away; store: away"


def test_a_refused_reload_is_no_reason_to_be_taken_out_of_service() -> None:
    """A drain is one."""
    assert not any(check.trouble for check in checks_of_life("", is_draining=False))
    fatal = [
        [check.name for check in checks if check.fatal and check.trouble]
        for checks in (
            checks_of_life("it has mistakes", is_draining=False),
            checks_of_life("", is_draining=True),
        )
    ]
    assert fatal == [[], ["not draining"]]


def test_both_ends_of_a_reload_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the name of what is in force."""
    reloads = Reloads()
    with caplog.at_level(logging.INFO):
        reloads.tell("", "g2")
        for _ in range(2):
            reloads.tell("it has mistakes", "g2")
    assert [record.levelname for record in caplog.records] == ["INFO", *["ERROR"] * 2]
    assert "generation g2" in caplog.text
    assert "the old configuration stays: it has mistakes" in caplog.text
    assert [*reloads.measure()] == [
        (RELOADS, ("applied",), 1),
        (RELOADS, ("refused",), 2),
    ]
