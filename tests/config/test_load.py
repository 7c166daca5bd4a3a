"""gateway.config.load: files become settings and a policy, or every problem at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.documents import strings
from gateway.config.load import ConfigError, load
from gateway.config.positions import scan
from gateway.policy.spec import KeyPath
from tests.config.making import Project

FILES = ("gateway.toml", "policies/orders.toml", "policies/roles.toml")
# Names that are free: they are whatever the other side calls them.
FREE = {("identity", "headers", "X-Auth-Request-User")}


def test_the_repository_s_own_configuration_loads(project: Project) -> None:
    """It is what `make run` starts, and every one of its weakenings is accepted."""
    loaded = project.load()
    assert [path.relative_to(project.path).as_posix() for path in loaded.files] == [
        *FILES
    ]
    assert {item.what for item in loaded.settings.weakenings} == set(
        loaded.settings.accepted
    )
    assert not loaded.policy.unowned
    assert [route.id for route, _ in loaded.policy.public] == ["orders.status"]


def test_no_file_is_no_configuration() -> None:
    """Nor is one that isn't there."""
    with pytest.raises(ConfigError, match="no config file"):
        load([], env={})
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read"):
        load([Path("missing.toml")], env={})


def test_it_loads_from_anywhere(
    project: Project, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    """Paths are relative to the file that says them; messages name it in full."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert project.load().settings.issuers["demo"].keys.jwks_file == str(
        project.path / ".gateway" / "demo-jwks.json"
    )
    project.edit("gateway.toml", "[store]", "[stor]")
    assert f"{project.path}/gateway.toml:19:2: unknown key" in project.report()


def test_a_base_replaces_where_files_are(project: Project) -> None:
    """For a configuration that was written elsewhere."""
    project.write("etc/gateway.toml", project.read("gateway.toml"))
    loaded = load([project.path / "etc/gateway.toml"], env={}, base=project.path)
    assert loaded.files[1] == project.path / "policies" / "orders.toml"


def test_later_files_overlay_earlier_ones(project: Project) -> None:
    """Per key; the last one is where a wrong value is found."""
    project.write(
        "prod.toml",
        '[server]\nlisten = ["127.0.0.1:9000"]\n[store]\nurl = "env:REDIS"\n'
        '[issuer.demo]\nleeway = "5s"\n',
    )
    project.env["REDIS"] = "rediss://redis"
    settings = project.load("gateway.toml", "prod.toml").settings
    assert [address.port for address in settings.server.listen] == [9000]
    assert settings.server.public_url == "http://127.0.0.1:8080"
    assert settings.store.url == "rediss://redis"
    assert settings.issuers["demo"].leeway == 5
    assert settings.issuers["demo"].issuer == "https://login.demo.example"

    project.edit("prod.toml", '"5s"', '"5min"')
    (problem,) = project.problems("gateway.toml", "prod.toml")
    assert problem.file == "prod.toml"
    assert "prod.toml:6:10" in project.report("gateway.toml", "prod.toml")


def test_the_default_admin_socket_is_beside_the_first_file(project: Project) -> None:
    """Whatever else is laid over it."""
    project.edit("gateway.toml", 'listen = "unix:.gateway/admin.sock"', "")
    project.write("over/lay.toml", '[admin]\ntoken = "env:T"\n')
    project.env["T"] = "0123456789abcdef"
    admin = project.load("gateway.toml", "over/lay.toml").settings.admin
    assert admin is not None
    assert admin.listen.path == str(project.path / ".gateway" / "admin.sock")


def test_every_file_that_does_not_parse_is_told(project: Project) -> None:
    """All of them, and nothing else: what they say is unknown."""
    project.write("a.toml", "a = \n").write("b.toml", "[b\n")
    report = project.report("gateway.toml", "a.toml", "b.toml", "c.toml")
    assert re.findall(r"^(\w+\.toml)", report, re.MULTILINE) == [
        *("a.toml", "b.toml", "c.toml")
    ]
    assert report.endswith("3 problems in 3 files")


def test_a_broken_issuer_is_still_an_issuer(project: Project) -> None:
    """The policy names it, and that is not wrong."""
    project.edit("gateway.toml", '["ES256"]', '["ES265"]')
    project.edit("policies/orders.toml", '"orders:reports"\n', '"orders:report"\n')
    assert [problem.at for problem in project.problems()] == [
        ("issuer", "demo", "algorithms", 0),
        ("route", 4, "require"),
    ]


def test_any_host_is_a_weakening(project: Project) -> None:
    """R4: a service's hosts count too."""
    project.edit("gateway.toml", 'hosts      = ["127.0.0.1", "localhost"]', "")
    assert "any Host" in project.weak()
    project.edit(
        "policies/orders.toml", "prefix   =", 'hosts = ["a.example"]\nprefix ='
    )
    assert "any Host" not in project.weak()


# --- R96: what came from outside is shown nowhere ---------------------------------


def string_places(project: Project) -> Iterator[tuple[str, KeyPath]]:
    for file in FILES:
        for at, _ in strings(tomllib.loads(project.read(file))):
            yield file, at


def replace_at(project: Project, file: str, at: KeyPath, value: str) -> None:
    text = project.read(file)
    span = scan(text).values[at]
    project.write(file, text[: span.start] + value + text[span.stop :])


def texts_of(found: object) -> str:
    return f"{found!r} {found!s}"


def test_no_value_from_the_environment_is_shown(project: Project) -> None:
    """Every string of the example in turn, with what it is and with nonsense."""
    originals = {file: project.read(file) for file in FILES}
    for file, at in list(string_places(project)):
        value = next(
            text for path, text in strings(tomllib.loads(originals[file])) if path == at
        )
        refused: list[str] = []
        for said in (value, "CANARY-7f3a\x1b"):
            replace_at(project, file, at, '"env:X"')
            project.env["X"] = said
            try:
                loaded = project.load()
            except ConfigError as error:
                shown = texts_of(error) + texts_of(error.problems)
                refused.append(said)
            else:
                shown = texts_of(loaded) + texts_of(loaded.settings)
                shown += texts_of(loaded.settings.server)
                shown += texts_of(dict(loaded.settings.issuers))
                shown += texts_of(dict(loaded.settings.upstreams))
                shown += texts_of(loaded.settings.identity)
                shown += texts_of(loaded.settings.weakenings)
            assert "CANARY" not in shown, at
            assert value not in refused, f"{at}: env: works in any string"
            project.write(file, originals[file])


# --- R84: a slip never opens anything ---------------------------------------------


def loads(project: Project) -> bool:
    try:
        project.load()
    except ConfigError as error:
        return not (error.problems and str(error))
    return True


def misspellings(name: str) -> list[str]:
    return [name[:-1], name.upper(), name[1:2] + name[:1] + name[2:]]


def test_a_misspelt_key_never_loads(project: Project) -> None:
    """Every key of the example, by every kind of slip."""
    slips = 0
    for file in FILES:
        text = project.read(file)
        for at, span in scan(text).keys.items():
            name = at[-1]
            if not isinstance(name, str) or at in FREE:
                continue
            for slip in misspellings(name):
                if slip == name or not slip:
                    continue
                quoted = slip if re.fullmatch(r"[\w-]+", slip) else f'"{slip}"'
                changed = text[: span.start] + quoted + text[span.stop :]
                project.write(file, changed)
                assert not loads(project), (file, at, slip)
                slips += 1
        project.write(file, text)
    assert slips > 200


def test_a_deleted_line_never_opens_a_route(project: Project) -> None:
    """What loads without a line asks every route's caller for as much as before."""
    file = "policies/orders.toml"
    text = project.read(file)
    asked = {
        (listing.methods, listing.path): listing.requires
        for listing in project.load().policy.listings
    }
    lines = text.split("\n")
    loaded = 0
    for number in range(len(lines)):
        project.write(file, "\n".join(lines[:number] + lines[number + 1 :]))
        try:
            policy = project.load().policy
        except ConfigError:
            continue
        loaded += 1
        for listing in policy.listings:
            before = asked[listing.methods, listing.path]
            assert listing.requires == before, lines[number]
    assert loaded > 20


# --- whatever is written, it is told, not raised ----------------------------------

PIECES = [
    '"',
    "'",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    "\n",
    "#",
    "\\",
    ",",
    "\0",
]
PIECES += ["env:X", "file:x", "é", "\u202e", "1e9999", "9" * 20, "true", "[[route]]\n"]
PIECES += ['"""', "'''", "inf", "1979-05-27", "{a=1}", "[1]", '""', "*", "..", "-1"]


@settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_mutation_is_more_than_a_config_error(project: Project, data: Any) -> None:
    """Bytes cut, doubled, replaced; values of any other type in any place."""
    file = data.draw(st.sampled_from(FILES))
    original = project.read(file)
    text = original
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 20)))
        piece = data.draw(st.sampled_from(PIECES) | st.just(text[start:stop] * 2))
        text = text[:start] + piece + text[stop:]
    try:
        project.write(file, text)
        loads(project)
    finally:
        project.write(file, original)


VALUES = ["1", "-1", "1.5", "nan", "true", '""', '"x"', "[]", "[1]", '["x"]', "{}"]
VALUES += ["{ x = 1 }", "[{}]", "[[]]", '"\\u0000"', '"env:X"', '"file:x"', "07:32:00"]
VALUES += ['"*"', '"../.."', '"/"', '"unix:"', '"https://["', "9223372036854775808"]


@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_value_is_more_than_a_config_error(project: Project, data: Any) -> None:
    """Any value at any key path of the example."""
    file = data.draw(st.sampled_from(FILES))
    original = project.read(file)
    at = data.draw(st.sampled_from(sorted(scan(original).values, key=repr)))
    replace_at(project, file, at, data.draw(st.sampled_from(VALUES)))
    try:
        loads(project)
    finally:
        project.write(file, original)
