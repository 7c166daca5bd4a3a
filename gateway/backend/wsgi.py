"""Verify the gateway's assertion before a WSGI app sees the request.

PEP 3333. The identity is then in `environ["gateway.identity"]`. Two fields of one name
arrive joined by a comma, which no assertion contains. Where keys have to be fetched,
the request that needs them waits; others are served meanwhile.

A WSGI server decodes the path, so that binding to the request (`htu`) can be checked
only where the server hands on what it received, in REQUEST_URI or RAW_URI: gunicorn,
uWSGI, mod_wsgi, waitress and werkzeug do. Elsewhere a bound assertion is refused.

Imports: gateway.backend.answers, gateway.backend.guard, gateway.backend.keys,
gateway.backend.verify.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from gateway.backend.answers import NO_KEYS, UNSIGNED, problem
from gateway.backend.guard import KEY, Refused
from gateway.backend.keys import KeysUnavailable
from gateway.backend.verify import HEADER, Fault, Identity, IdentityError, Verifier

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

log = logging.getLogger("gateway.backend")


class WsgiIdentityMiddleware:
    """Lets pass what the gateway signed. Belongs outside of everything else."""

    def __init__(
        self,
        app: App,
        verifier: Verifier,
        *,
        optional: bool = False,
        exempt: Collection[str] = (),
    ) -> None:
        """Wrap *app*.

        Args:
            app: Any WSGI app.
            verifier: Of this service.
            optional: Let pass what carries no assertion, without an identity. One that
                can't be believed is refused nevertheless.
            exempt: Paths that are served without looking, such as a health check;
                whole and decoded: SCRIPT_NAME with PATH_INFO.
        """
        self._app = app
        self._verifier = verifier
        self._optional = optional
        self._exempt = frozenset(exempt)

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        who = None
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path not in self._exempt:
            try:
                who = self._verify(environ)
            except IdentityError as error:
                if error.reason is not Fault.MISSING or not self._optional:
                    log.warning("identity refused: %s", error.reason)
                    return _refuse(start_response, HTTPStatus.UNAUTHORIZED, UNSIGNED)
            except KeysUnavailable:
                log.warning("the gateway's keys can't be had")
                return _refuse(start_response, HTTPStatus.SERVICE_UNAVAILABLE, NO_KEYS)
        environ[KEY] = who
        try:
            return self._app(environ, start_response)
        except Refused as refused:
            # Before start_response, or the server will say that it was called twice.
            return _refuse(start_response, refused.status, refused.detail)

    def _verify(self, environ: Environ) -> Identity:
        return self._verifier.verify(
            environ.get(_variable(HEADER)),
            method=environ["REQUEST_METHOD"],
            target=environ.get("REQUEST_URI") or environ.get("RAW_URI"),
            headers=self._copies(environ),
        )

    def _copies(self, environ: Environ) -> Iterator[tuple[str, str]]:
        """Yield the plain copies among the header fields of *environ*."""
        for name in self._verifier.copied:
            value = environ.get(_variable(name))
            if value is not None:
                yield name, value


def _variable(name: str) -> str:
    """Return the name under which an environ holds the header *name*."""
    return "HTTP_" + name.upper().replace("-", "_")


def _refuse(
    start_response: StartResponse, status: HTTPStatus, detail: str
) -> Iterable[bytes]:
    """Answer with *status*."""
    fields, body = problem(status, detail)
    start_response(f"{status} {status.phrase}", fields)
    return [body]
