"""HTTP to an issuer: a question, and an answer within bounds of time and size.

No cookie jar, no redirects, nothing of the environment, one connection for each
question. What an operator configured is asked as it stands. What a discovery document
names is the issuer's word: https, and no address inside our own network (R48).

Imports: gateway.adapters.sources, gateway.tokens.strict_json, httpx2.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from gateway.adapters.sources import Resolve, SourceAway, SourceFailed, resolve_name
from gateway.tokens.strict_json import loads

DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery section 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where to ask: URLs that stand in for one another, and how they are called."""

    urls: tuple[httpx2.URL, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said."""

    body: bytes = field(repr=False)
    headers: httpx2.Headers = field(repr=False)


class IssuerHttp:
    """Asks one issuer.

    Args:
        issuer: Its `iss`.
        url: Where to ask; None: what the issuer's discovery document says.
        ca_file: Certificates to trust instead of the system's.
        proxy: http(s)://host:port.
        answer: Seconds for one answer, from the look-up of the name to its end.
        most: Bytes of an answer.
        resolve: Looks a name up.
        transport: Instead of the network, proxies included.

    Raises:
        ValueError: The URL or the CA file can't be used.
    """

    def __init__(
        self,
        issuer: str,
        *,
        url: str | None,
        ca_file: str | None,
        proxy: str | None,
        answer: float,
        most: int,
        resolve: Resolve = resolve_name,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._issuer = issuer
        self._proxy = proxy
        self._answer = answer
        self._most = most
        self._resolve = resolve
        self._transport = transport
        self._client: httpx2.AsyncClient | None = None
        self._making = asyncio.Lock()
        # A missing or broken CA file is found at start. The system's are not read
        # before they are needed, and not on the loop: that takes 20 ms and more.
        self._ca = _own_ca(ca_file)
        self._url = _configured_url(url or issuer.rstrip("/") + DISCOVERY)
        self._is_discovered = url is None

    async def place(self, member: str) -> Place:
        """Return where to ask.

        Args:
            member: Of the discovery document, where that says it.

        Raises:
            SourceFailed: There is no such document, or what it says can't be used.
        """
        if not self._is_discovered:
            return Place((self._url,))
        return await self.judged(await self.discover(member), member)

    async def discover(self, member: str) -> httpx2.URL:
        """Return the URL that the discovery document calls *member*.

        OpenID Connect Discovery section 4.3: the document has to be this issuer's own,
        octet by octet.

        Raises:
            SourceFailed: There is no such document, or no such URL in it.
        """
        found = loads((await self.get(Place((self._url,)))).body)
        if found is None:
            raise SourceFailed("discovery: not one strict JSON object")
        if found.get("issuer") != self._issuer:
            raise SourceFailed("discovery: the document of another issuer")
        said = found.get(member)
        try:
            url = httpx2.URL(said if isinstance(said, str) else "")
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if not _is_allowed(url) or (
            not self._is_own(url) and (url.scheme != "https" or url.userinfo)
        ):
            raise SourceFailed(f"discovery: {member} is no https URL")
        return url

    async def judged(self, url: httpx2.URL, member: str) -> Place:
        """Return where *url* is, which was discovered as *member*, if we may go there.

        Raises:
            SourceFailed: It leads into a network, or its name can't be looked up.
        """
        if self._is_own(url):
            # Its own host, wherever that is: a provider inside our network is usual.
            return Place((url,))
        if self._proxy:
            # The proxy looks names up, and decides what may be reached. What we can
            # see ourselves is an address.
            literal = url.host.strip("[]")
            if _address(literal) is not None and not _is_public(literal):
                raise SourceFailed(f"discovery: {member} is inside a network")
            return Place((url,))
        # The addresses that were judged are those that are connected to. To look the
        # name up again would let it mean something else by then.
        try:
            async with asyncio.timeout(self._answer):
                addresses = await self._resolve(url.host, url.port or 443)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise SourceAway(f"discovery: {member} could not be looked up") from error
        if not addresses or not all(map(_is_public, addresses)):
            raise SourceFailed(f"discovery: {member} is inside a network")
        return Place(
            tuple(url.copy_with(host=address) for address in addresses),
            {"Host": url.netloc.decode("ascii")},
            {"sni_hostname": url.host},
        )

    async def get(self, place: Place) -> Answer:
        """Return the document at *place*.

        Raises:
            SourceFailed: There is none that can be used.
        """
        return await self._ask("GET", place, {}, None)

    async def post(
        self, place: Place, form: bytes, headers: Mapping[str, str]
    ) -> Answer:
        """Return the answer to *form*, application/x-www-form-urlencoded.

        Raises:
            SourceFailed: There is none that can be used.
        """
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", place, {**kind, **headers}, form)

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()

    def _is_own(self, url: httpx2.URL) -> bool:
        return url.host == self._url.host

    async def _ask(
        self, method: str, place: Place, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Return the answer of the first URL of *place* that can be connected to."""
        if self._client is None:
            async with self._making:
                await self._make()
        try:
            async with asyncio.timeout(self._answer):
                for url in place.urls[:-1]:
                    with contextlib.suppress(httpx2.ConnectError):
                        return await self._ask_one(method, url, place, headers, body)
                return await self._ask_one(method, place.urls[-1], place, headers, body)
        except TimeoutError as error:
            raise SourceAway("no answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            # The type and no more: the text may quote what was received.
            raise SourceAway(type(error).__name__) from error

    async def _make(self) -> None:
        """Make the client, unless somebody else just did."""
        if self._client is None:
            if self._ca is None:
                self._ca = await asyncio.to_thread(ssl.create_default_context)
            self._client = self._http(self._ca)

    async def _ask_one(
        self,
        method: str,
        url: httpx2.URL,
        place: Place,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Answer:
        assert self._client is not None
        async with self._client.stream(
            method,
            url,
            content=body,
            headers={**headers, **place.headers},
            extensions=place.extensions,
        ) as answer:
            # A redirect is not followed: it is an address that nobody configured.
            if answer.status_code != httpx2.codes.OK:
                raise SourceFailed(f"status {answer.status_code}")
            # We asked for none: a small answer can become a very large one.
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise SourceFailed("a compressed answer")
            received = bytearray()
            async for chunk in answer.aiter_raw():
                received += chunk
                if len(received) > self._most:
                    raise SourceFailed(f"an answer of more than {self._most} bytes")
            return Answer(bytes(received), answer.headers)

    def _http(self, ca: ssl.SSLContext) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            verify=ca,
            proxy=self._proxy if self._transport is None else None,
            trust_env=False,
            follow_redirects=False,
            timeout=self._answer,
            # What was left over on a kept connection would be taken for the answer to
            # somebody else's question. And refreshes are minutes apart.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            transport=self._transport,
        )


def _own_ca(path: str | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError("its ca_file can't be read as certificates") from error


def _configured_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise ValueError("its URL is no URL") from None
    if not _is_allowed(url):
        raise ValueError("it is asked over https, or over http on loopback")
    return url


# The library is lenient: "https://[/" has the host "%5B" to it.
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")


def _is_allowed(url: httpx2.URL) -> bool:
    if not _HOST.fullmatch(url.raw_host):
        return False
    if url.scheme == "http":
        return url.host == "localhost" or _is_loopback(url.host)
    return url.scheme == "https"


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address inside


def _address(text: str) -> _Address | None:
    """Return the address that *text* is, the IPv4 one inside where there is one."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        return found.ipv4_mapped or found.sixtofour or found
    return found


def _is_loopback(text: str) -> bool:
    found = _address(text)
    return found is not None and found.is_loopback


def _is_public(text: str) -> bool:
    """Tell whether *text* is an address that belongs to no inner network.

    Loopback, private, link-local (where clouds keep their metadata), carrier-grade NAT,
    documentation and multicast are none.
    """
    found = _address(text)
    return found is not None and found.is_global and not found.is_multicast
