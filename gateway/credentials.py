"""The configuration as the rooms of tokens take it: who verifies what, by which rules.

Imports: gateway.config, gateway.decision, gateway.model, gateway.tokens.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from gateway.config.sealed import fernet_keys, jwe_keys
from gateway.config.settings import ApiKeys, Issuer, Settings
from gateway.decision import Authenticator
from gateway.model import API_KEYS
from gateway.tokens.api_key import ApiKey, KeyRules, Secret, digest_of
from gateway.tokens.binding import Bindings
from gateway.tokens.claims import IssuerRules
from gateway.tokens.client_certificates import CertificateAuthenticator
from gateway.tokens.confirmation import BindingRules
from gateway.tokens.dpop import Nonces, Proofs
from gateway.tokens.fernet import FernetAuthenticator
from gateway.tokens.introspection import OpaqueAuthenticator, OpaqueRules
from gateway.tokens.jwks import KeyStore
from gateway.tokens.jwt import JwtAuthenticator


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
        # Older than any revocation of its owner's keys.
        keys[digest] = ApiKey(
            id=each.id,
            owner=each.owner,
            secrets=(Secret(digest, created=0.0),),
            created=0.0,
            expires=each.expires,
            roles=each.roles,
            scope=each.scopes,
            networks=each.networks,
        )
    return keys


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
