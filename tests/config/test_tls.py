"""gateway.config.tls: the files of [server.tls]."""

from __future__ import annotations

import pytest

from gateway.config.load import load
from gateway.config.settings import Tls
from gateway.tokens.certificates import SOON
from tests.certificates import Authority
from tests.config.making import Project

CA = Authority()
OURS, OTHER = CA.sign(), CA.sign()
START = OURS.certificate.not_valid_before_utc.timestamp()
END = OURS.certificate.not_valid_after_utc.timestamp()
PAIR = """
certificate = "file:tls/tls.crt"
key = "file:tls/tls.key"
"""
SECTION = "\n[server.tls]" + PAIR


@pytest.fixture
def files(project: Project) -> Project:
    directory = project.path / "tls"
    directory.mkdir()
    OURS.write(directory)
    OTHER.write(directory, "other")
    CA.write(directory)
    return project


def test_two_files_are_enough(files: Project) -> None:
    """They are named, not read into the settings: they may change."""
    at = files.path / "tls"
    tls = files.append("gateway.toml", SECTION).load().settings.server.tls
    assert tls == Tls(str(at / "tls.crt"), str(at / "tls.key"))


def test_everything_can_be_said(files: Project) -> None:
    """An env: reference may say where the file is."""
    more = """certificate = "env:CERTIFICATE"
key = "file:tls/tls.key"
minimum = "1.3"
client = "optional"
client_ca = "file:tls/ca.crt"
"""
    files.env["CERTIFICATE"] = "file:tls/tls.crt"
    at = files.path / "tls"
    text = "\n[server.tls]\n" + more
    tls = files.append("gateway.toml", text).load().settings.server.tls
    assert tls == Tls(
        str(at / "tls.crt"), str(at / "tls.key"), "1.3", "optional", str(at / "ca.crt")
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('key = "file:tls/tls.key"', "", 0, "key"),
        ('certificate = "file:tls/tls.crt"', "", 0, "certificate"),
        ("tls.key", "other.key", 2, "the key does not belong to the certificate"),
        ("tls/tls.key", "absent", 2, "cannot be read: No such file"),
        ("file:tls/tls.key", "tls/tls.key", 2, 'key: expected "file:/path"'),
        ("tls.key", "tls.crt", 2, "key: there is no PEM private key in it"),
        ("tls.crt", "tls.key", 1, "certificate: there is no PEM certificate in it"),
        ("tls/tls.crt", "tls", 1, "its file cannot be read: Is a directory"),
        ("\ncert", '\nminimum = "1.1"\ncert', 1, 'expected "1.2" or "1.3"'),
        ("\ncert", '\nclient = "required"\ncert', 1, "whose certificates count"),
        ("\ncert", '\nclient_ca = "file:tls/ca.crt"\ncert', 1, "no client is asked"),
        (
            "\ncert",
            '\nclient = "optional"\nclient_ca = "file:tls/tls.key"\ncert',
            2,
            "client_ca: there is no PEM certificate in it",
        ),
        ("\ncert", "\nversions = 1\ncert", 1, "versions"),
    ],
)
def test_what_is_wrong_has_its_place(
    files: Project, old: str, new: str, line: int, words: str
) -> None:
    """All of it before anything listens."""
    before = files.read("gateway.toml").count("\n") + 2
    files.append("gateway.toml", "\n[server.tls]" + PAIR.replace(old, new, 1))
    report = files.report()
    assert words in report
    assert "1 problem" in report
    assert f"gateway.toml:{before + line}:" in report


def test_a_unix_socket_alone_has_no_use_for_it(files: Project) -> None:
    """TLS is for TCP."""
    files.edit("gateway.toml", '["127.0.0.1:8080"]', '["unix:data.sock"]')
    files.append("gateway.toml", SECTION)
    assert "Unix sockets alone" in files.report()


@pytest.mark.parametrize("name", ["key", "certificate"])
def test_no_pem_is_shown(files: Project, name: str) -> None:
    """Whoever pastes the key into the file does not find it in the log of the CI."""
    pem = OURS.key_pem.decode()
    old = {"key": '"file:tls/tls.key"', "certificate": '"file:tls/tls.crt"'}[name]
    before = files.read("gateway.toml")
    for quoted in (f"'''{pem}'''", '"' + pem.replace("\n", "\\n") + '"'):
        files.append("gateway.toml", SECTION.replace(old, quoted))
        report = files.report()
        assert f'{name}: expected "file:/path"' in report
        for line in pem.splitlines():
            assert line not in report
        files.write("gateway.toml", before)


def test_a_broken_line_shows_no_key(files: Project) -> None:
    """A quote that was forgotten is found without repeating what it would end."""
    line = '\n[server.tls]\nkey = "' + OURS.key_pem.decode().replace("\n", "\\n")
    report = files.append("gateway.toml", line + "\n").report()
    assert "PRIVATE" not in report


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (START - 1, ["TLS certificate not valid yet"]),
        (START, []),
        (END - SOON - 1, []),
        (END - SOON, ["TLS certificate expires soon"]),
        (END, ["expired TLS certificate"]),
        (None, []),
    ],
)
def test_what_expires_is_shown(
    files: Project, now: float | None, what: list[str]
) -> None:
    """A weakening, with the day; the clock is that of whoever asks."""
    files.append("gateway.toml", SECTION)
    loaded = load([files.path / "gateway.toml"], env={}, now=now)
    shown = [it for it in loaded.settings.weakenings if "certificate" in it.what]
    assert [it.what for it in shown] == what
    assert all(it.why.endswith("UTC") for it in shown)
    assert all("gateway.toml:" in it.place for it in shown)


def test_a_key_that_others_read_is_a_weakening(files: Project) -> None:
    """As with every other secret; the certificate is for everybody."""
    files.append("gateway.toml", SECTION)
    assert "readable secret server.tls.key" not in files.weak()
    for name in ("tls.key", "tls.crt"):
        (files.path / "tls" / name).chmod(0o644)
    assert "readable secret server.tls.key" in files.weak()
    assert "readable secret server.tls.certificate" not in files.weak()
