"""The configuration as the rooms of tokens take it: who verifies what, by which rules.

Imports: gateway.config, gateway.decision, gateway.model, gateway.tokens.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import replace

from gateway.config.sealed import fernet_keys, jwe_keys
from gateway.config.settings import ApiKeys, Issuer, Settings
from gateway.decision import Authenticator
from gateway.model import API_KEYS, CERTIFICATES, Denial, Principal, Reason
from gateway.tokens.api_key import (
    ApiKey,
    KeyRules,
    Secret,
    digest_of,
    principal_of,
    token_id_of,
)
from gateway.tokens.binding import Bindings
from gateway.tokens.claims import IssuerRules, read_again
from gateway.tokens.client_certificates import CertificateAuthenticator
from gateway.tokens.confirmation import BindingRules
from gateway.tokens.dpop import Nonces, Proofs
from gateway.tokens.fernet import FernetAuthenticator
from gateway.tokens.introspection import OpaqueAuthenticator, OpaqueRules
from gateway.tokens.jwks import KeyStore
from gateway.tokens.jwt import JwtAuthenticator

DECLARED_AT = 0.0
"""When a declared key was made: before any revocation of its owner's keys."""


def authenticators(
    settings: Settings, keys: KeyStore, token_key: bytes
) -> Iterator[Authenticator]:
    """Yield who verifies tokens, in the order in which they are asked.

    Args:
        settings: The configuration.
        keys: Of the issuers that sign.
        token_key: Of the process; ephemeral keys come from it.
    """
    yield from _certificates(settings)
    issuers = settings.issuers.values()
    signing = [rules_of(each, settings) for each in issuers if each.signs]
    yield JwtAuthenticator(signing, keys)
    yield from _sealed(settings, keys, token_key)
    # The last one: what nobody else knows by its shape is opaque.
    asked = [_opaque(each, settings) for each in issuers if each.introspection]
    yield OpaqueAuthenticator(asked)


def rules_of(issuer: Issuer, settings: Settings) -> IssuerRules:
    """Return *issuer*, one of *settings*, as the authenticators take it."""
    return IssuerRules(
        name=issuer.name,
        issuer=issuer.issuer,
        audience=issuer.audience,
        algorithms=issuer.algorithms,
        token_types=issuer.token_types,
        leeway=issuer.leeway,
        max_lifetime=issuer.max_lifetime,
        token_id=issuer.token_id,
        role_claim=issuer.roles.claim,
        role_map=issuer.roles.map,
        role_allow=issuer.roles.allow,
        role_split=issuer.roles.split,
        scope_claim=issuer.scope.claim,
        binding=BindingRules(
            dpop=settings.dpop is not None,
            address_claim=issuer.address_claim,
            subnet_v4=issuer.subnet_v4,
            subnet_v6=issuer.subnet_v6,
            required=issuer.binding,
        ),
    )


def key_rules(settings: Settings) -> KeyRules:
    """Return [api_keys], as far as it decides about keys."""
    said, issuer = settings.api_keys, settings.issuers[API_KEYS]
    assert said is not None, "there are API keys"
    return KeyRules(
        prefix=said.prefix,
        pepper=said.pepper,
        allow=issuer.roles.allow,
        max_lifetime=said.max_lifetime,
        imported=said.imported,
    )


def declared_keys(said: ApiKeys) -> dict[bytes, ApiKey]:
    """Return the keys that stand in the configuration, by digest."""
    keys = {}
    for each in said.declared:
        digest = digest_of(each.sha256, said.pepper)
        keys[digest] = ApiKey(
            id=each.id,
            owner=each.owner,
            secrets=(Secret(digest, created=DECLARED_AT),),
            created=DECLARED_AT,
            expires=each.expires,
            roles=each.roles,
            scope=each.scopes,
            networks=each.networks,
        )
    return keys


class Rereading:
    """Says who somebody verified by an earlier configuration is by this one.

    Without the credential, which may be used up: what it said is known.
    """

    def __init__(self, settings: Settings) -> None:
        self._certificates = settings.certificates
        self._issuers = {
            name: rules_of(each, settings) for name, each in settings.issuers.items()
        }
        said = settings.api_keys
        self._declared: dict[str, tuple[ApiKey, Secret]] = {}
        self._key_rules = None if said is None else key_rules(settings)
        if said is not None:
            for digest, key in declared_keys(said).items():
                self._declared[token_id_of(digest)] = key, key.secrets[0]

    def __call__(self, principal: Principal, now: float) -> Principal | Denial:
        """Return *principal* as of *now* (Unix seconds), or why it is nobody now."""
        if principal.kind == "anonymous":
            return principal
        rules = self._issuers.get(principal.issuer)
        if rules is None:
            return Denial(Reason.ISSUER_UNTRUSTED)
        if principal.issuer == CERTIFICATES:
            assert self._certificates is not None, "they are an issuer"
            roles = self._certificates.roles.get(principal.subject, frozenset())
            return replace(principal, roles=roles)
        if principal.issuer == API_KEYS:
            return self._key(principal, rules, now)
        return read_again(principal, rules)

    def _key(
        self, principal: Principal, rules: IssuerRules, now: float
    ) -> Principal | Denial:
        assert self._key_rules is not None, "they are an issuer"
        declared = self._declared.get(principal.token_id)
        if declared is not None:
            return principal_of(*declared, self._key_rules, now)
        if principal.issued_at == DECLARED_AT:
            return Denial(Reason.CREDENTIAL_UNRECOGNISED)
        # Of a key in the store no configuration says more.
        return replace(principal, roles=principal.roles & rules.role_allow)


def _opaque(issuer: Issuer, settings: Settings) -> OpaqueRules:
    introspection = issuer.introspection
    assert introspection is not None, "it is one that is asked"
    return OpaqueRules(
        rules_of(issuer, settings),
        cache=introspection.cache,
        prefix=introspection.prefix,
        needs_audience=introspection.audience_from == "token",
    )


def _sealed(
    settings: Settings, keys: KeyStore, token_key: bytes
) -> Iterator[Authenticator]:
    """Yield what verifies Fernet tokens and encrypted ones, where they are accepted."""
    rules = {name: rules_of(each, settings) for name, each in settings.issuers.items()}
    fernet, jwe = settings.fernet, settings.jwe
    if fernet is not None:
        yield FernetAuthenticator(
            rules["fernet"], fernet_keys(fernet), needs_session=fernet.needs_session
        )
    if jwe is not None:
        # joserfc costs 50 ms to import: whoever has no [jwe] doesn't wait for it.
        from gateway.tokens.jwe import JweAuthenticator  # noqa: PLC0415

        inner = [rules[name] for name in jwe.nested]
        yield JweAuthenticator(
            jwe_keys(jwe, token_key),
            rules.get("jwe"),
            JwtAuthenticator(inner, keys) if inner else None,
        )


def _certificates(settings: Settings) -> Iterator[CertificateAuthenticator]:
    found = settings.certificates
    if found is not None:
        yield CertificateAuthenticator(found.name, found.roles, found.max_lifetime)


def bindings_of(settings: Settings, token_key: bytes) -> Bindings:
    """Return what proves that a token is presented by whom it is bound to."""
    dpop, url = settings.dpop, settings.server.public_url
    proofs = nonces = None
    if dpop is not None and url is not None:
        if dpop.nonce:
            # All workers share what the names of tokens are made with.
            own = hmac.digest(token_key, b"DPoP nonces", "sha256")
            nonces = Nonces(dpop.nonce_key or own)
        proofs = Proofs(url, dpop.algorithms, nonces)
    return Bindings(settings.server.client_certificate, proofs)
