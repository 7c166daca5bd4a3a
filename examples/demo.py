"""`make run`: the gateway, a backend behind it, and people to try it with.

Runs the real command on the repository's own gateway.toml and policies/, with the
memory store and keys that are made on the first start (.gateway/, mode 0600). Ctrl-C
stops all of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from gateway.cli.people import Person, TokenMaker
from gateway.identity.keys import new_key_pem

ROOT = Path(__file__).parent.parent
STATE = Path(".gateway")
CONFIG = ("-c", "gateway.toml", "-c", str(STATE / "demo.toml"))
GATEWAY = "http://127.0.0.1:8080"
BACKEND_PORT = 8000
ISSUER = "https://login.demo.example"
AUDIENCE = "https://api.demo.example"
ORDERS = GATEWAY + "/api/orders"
BODY = "-H 'Content-Type: application/json' -d '{\"item\": \"a lamp\"}'"

PEOPLE = (
    Person("alice", "c-1", ("customer",), "orders:read orders:write"),
    Person("bob", "c-2", ("customer",), "orders:read orders:write"),
    Person("sam", "s-1", ("support",), "orders:read orders:read_any orders:reports"),
)
# who, status, what the line shows, the rest of the curl line
CALLS = (
    ("alice", 200, "alice reads her own orders", f"{ORDERS}/customers/c-1/orders"),
    ("alice", 201, "alice places an order", f"{BODY} {ORDERS}/customers/c-1/orders"),
    ("alice", 403, "another's orders", f"{ORDERS}/customers/c-2/orders"),
    ("sam", 200, "support may read everybody's", f"{ORDERS}/customers/c-2/orders"),
    ("bob", 403, "the wrong role for reports", f"{ORDERS}/reports"),
    ("sam", 200, "the right role for reports", f"{ORDERS}/reports"),
    (None, 401, "no token", f"{ORDERS}/customers/c-1/orders"),
    (None, 200, "public", f"{ORDERS}/status"),
    (None, 200, "anybody may look at the catalogue", f"{ORDERS}/catalogue"),
    ("alice", 404, "a path that no route names", f"{GATEWAY}/api/nothing"),
    ("alice", 400, "an ambiguous path", f"--path-as-is {ORDERS}/status/../reports"),
)


def main() -> None:
    """Start everything, print what to try, wait for Ctrl-C."""
    os.chdir(ROOT)
    for name, port in (("gateway", 8080), ("probes", 9091), ("backend", BACKEND_PORT)):
        if _is_taken(port):
            sys.exit(f"port {port} ({name}) is in use: stop what listens there")
    tokens = _prepare()
    # Both mean Ctrl-C, also where a shell in the background has had them ignored.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), _children() as children:
        _wait_until_ready(children)
        _say(tokens)
        while all(child.poll() is None for child in children):
            time.sleep(0.2)
        sys.exit("a part of the demo ended by itself; see above")
    print("\nstopped", flush=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _prepare() -> dict[str, str]:
    """Make what is missing; return a token for each person."""
    os.umask(0o077)
    identity = STATE / "identity"
    identity.mkdir(parents=True, exist_ok=True)
    if not list(identity.glob("*.pem")):
        (identity / "identity.pem").write_bytes(new_key_pem("ES256"))
    # Ctrl-C is meant at once: no load balancer has to hear of it first.
    (STATE / "demo.toml").write_text('[server]\ndrain_delay = "0s"\n')
    maker = TokenMaker.kept_in(STATE / "demo-key.pem", issuer=ISSUER, audience=AUDIENCE)
    (STATE / "demo-jwks.json").write_text(json.dumps(maker.key_set()))
    tokens = {}
    (STATE / "tokens").mkdir(exist_ok=True)
    for person in PEOPLE:
        tokens[person.name] = maker.token(person, now=time.time(), lifetime=8 * 3600)
        (STATE / "tokens" / person.name).write_text(tokens[person.name])
    return tokens


@contextlib.contextmanager
def _children() -> Iterator[list[subprocess.Popen[bytes]]]:
    commands = (
        [sys.executable, "-m", "examples.orders_backend", "--port", str(BACKEND_PORT)],
        [sys.executable, "-m", "gateway", "serve", "--log", "text", *CONFIG],
    )
    children = [subprocess.Popen(command) for command in commands]
    try:
        yield children
    finally:
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_until_ready(children: list[subprocess.Popen[bytes]]) -> None:
    for _ in range(200):
        if any(child.poll() is not None for child in children):
            sys.exit("a part of the demo did not start; see above")
        if _answers("http://127.0.0.1:9091/readyz") and _is_taken(BACKEND_PORT):
            return
        time.sleep(0.05)
    sys.exit("the demo was not ready within 10 s; see above")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _say(tokens: dict[str, str]) -> None:
    print("\nThe gateway listens on", GATEWAY)
    print("\nTokens (also in .gateway/tokens/):\n")
    for person in PEOPLE:
        roles = ", ".join(person.roles)
        print(f"# {person.name} is {person.subject} ({roles})")
        print(f"export {person.name.upper()}={tokens[person.name]}\n")
    print("Try, in another terminal here:\n")
    for who, status, what, rest in CALLS:
        bearer = (
            f'-H "Authorization: Bearer $(cat .gateway/tokens/{who})" ' if who else ""
        )
        print(f"curl -i {bearer}{rest}  # {status} {what}")
    command = Path(sys.executable).with_name("gateway")
    with contextlib.suppress(ValueError):
        command = command.relative_to(ROOT)
    print(
        f"\n{command} explain GET /api/orders/customers/c-2/orders --token-stdin"
        " < .gateway/tokens/alice"
    )
    print(f"{command} revoke --sub c-1  # alice's next request is answered 401")
    print("\nCtrl-C stops everything. Each request is a line below.\n", flush=True)


if __name__ == "__main__":
    main()
