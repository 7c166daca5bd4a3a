"""The floor plan, enforced: which room may open which door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"
MODULES = sorted(ROOT.rglob("*.py"))

# Rooms from the ground up; each may import the rooms below its level, and itself.
LEVELS: list[set[str]] = [
    {"model", "clock"},
    {"wire", "observe"},
    {"tokens", "policy"},
    {"config"},
    {"identity", "revocation"},
    {"decision"},
    {"proxy", "asgi", "adapters", "channel", "signals"},
    {
        "app",
        "door",
        "ports",
        "reload",
        "serving",
        "worker",
        "supervisor",
        "cli",
        "__init__",
        "__main__",
    }
    | {
        "key_desk",
        "logout_desk",
        "revocation_desk",
        "stores",
        "signers",
        "credentials",
    },
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
TOP = len(LEVELS) - 1
ALONE = {"backend"}  # stands in other people's processes
PURE = {
    "model",
    "decision",
    "wire",
    "tokens",
    "policy",
    "identity",
    "revocation",
}

# Third-party packages, and the only rooms that know they exist.
ONLY_IN: dict[str, str] = {
    "aiodns": "proxy",
    "click": "cli",
    "cryptography": "tokens identity backend cli",
    "httptools": "proxy",
    "httpx2": "adapters cli",
    "joserfc": "tokens",
    "jwt": "tokens identity backend cli",
    "pydantic": "config",
    "redis": "adapters",
    "starlette": "asgi door ports",
    "uvicorn": "asgi",
    "uvloop": "worker cli",
}
# What a pure room never touches: sockets, clocks, loops, chance, files.
IMPURE = {
    "asyncio",
    "http",
    "os",
    "random",
    "requests",
    "secrets",
    "select",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "urllib.request",
}

NO_BEHAVIOUR = {
    "__init__.py",
    "__main__.py",
    "model.py",
    "clock.py",
    "spec.py",
    "settings.py",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only: they show the room"
            found.add(node.module or "")
    return found


def makers(path: Path, type_name: str) -> bool:
    return any(
        isinstance(node, ast.Call)
        and (
            getattr(node.func, "id", "") == type_name
            or getattr(node.func, "attr", "") == type_name
        )
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_keeps_to_its_room(path: Path) -> None:
    """Imports run downwards only, and each package is behind one door."""
    here = room(path)
    assert here in LEVEL or here in ALONE, f"give {here} a place in the plan"
    for name in imports(path):
        top, _, rest = name.partition(".")
        there = rest.split(".")[0] or "__init__"
        if top == "gateway" and there != here:
            assert here not in ALONE, f"{here} stands alone, but imports {there}"
            lower = there == "__init__" or LEVEL[there] < LEVEL[here]
            assert lower or LEVEL[here] == TOP, f"{here} imports {there}"
        if top in ONLY_IN:
            assert here in ONLY_IN[top].split(), f"{here} imports {top}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path) in PURE], ids=name_of
)
def test_a_pure_room_knows_no_clock_and_no_socket(path: Path) -> None:
    """`now` is an argument, and whatever waits is asked for with a Need."""
    touched = imports(path) & IMPURE
    assert not touched, f"{name_of(path)} imports {touched}"


def test_only_the_composition_root_names_the_time_module() -> None:
    """Everybody else is given a Clock; a test can then hold it."""
    naming = {
        name_of(path)
        for path in MODULES
        if "time" in imports(path) and room(path) not in ALONE
    }
    assert naming <= {"app.py"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_decision_makes_permits(path: Path) -> None:
    """A Permit is proof only while one module in the house can make it."""
    assert not makers(path, "Permit") or path == ROOT / "decision.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_reader_makes_request_heads(path: Path) -> None:
    """To hold a RequestHead proves that its target and its Host are canonical."""
    assert not makers(path, "RequestHead") or path == ROOT / "wire" / "request.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_its_test_where_one_would_look(path: Path) -> None:
    """gateway/tokens/jwt.py is tested by tests/tokens/test_jwt.py."""
    twin = Path(__file__).parent / path.relative_to(ROOT).with_name(f"test_{path.name}")
    assert path.name in NO_BEHAVIOUR or twin.exists()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_knows_and_what_it_imports(path: Path) -> None:
    """A reader meets a docstring first, and its last line is the list of imports."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if path.name == "__init__.py" and not text:
        return
    assert text
    if path.name not in {"__init__.py", "__main__.py"}:
        assert "Imports:" in text
