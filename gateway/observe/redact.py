r"""One function through which every line passes that a person or a log store will read.

A secret is known by its shape (a JWT, an API key, a PEM block, a password in a URL) or
by the name that stands before it (a header field, a parameter, a JSON member), in
whatever spelling a library or a traceback prints it: `repr` of dicts, lists and bytes
included (R96).
Where it is unclear how far a secret goes, too much is removed rather than too little.

The cost is linear in the text. Each pattern starts at a word that is rare, keeps what
it has looked at (possessive `*+`, Python 3.11), and cannot fail once it has looked far.

Imports: the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MASK = "[redacted]"

# Quotes, as they look from outside: ', ", and inside another literal \", \\\".
_QUOTE = r"""\\{0,15}["']"""
# A literal ends with the quote it began with, k backslashes included. A run of others
# before that character makes it a part of the value; but pairs of escaped backslashes
# at the value's end, 2k + 2 for each, may stand before its end or, inside yet another
# literal, not. Then, and without any end, the value is the rest of the line.
_LITERAL = (
    r"""[bBrRuU]{0,2}(?P<N>(?P<kN>\\{0,15})["'])"""
    r"""(?:[^\\\n"']|\\++[^\\\n"']"""
    r"""|(?:(?P=kN)(?P=kN)\\\\)++(?P=N)[^\n]*+"""
    r"""|(?!(?P=N))\\*+["'])*+"""
    r"""(?P=N)?+"""
)


def _literal(name: str) -> str:
    return _LITERAL.replace("N>", f"{name}>").replace("N)", f"{name})")


# From a name to its value: `: `, `=`, `': b'`, `', '`, `", "value": "`, `%3D`. A comma
# only after a quote: a sentence may mention Cookie, Authorization and others.
_AFTER_QUOTE = (
    rf"""{_QUOTE}[ \t]{{0,8}}(?:=>|[:=,])\s{{0,8}}"""
    rf"""(?:(?:{_QUOTE})?value(?:{_QUOTE})?[ \t]{{0,8}}[:=]\s{{0,8}})?"""
)
_EQUALS = r"""[ \t]{0,8}(?:=>|=|%(?:25)?3d)[ \t]{0,8}"""
_COLON = r"""[ \t]{0,8}(?::|%(?:25)?3a)[ \t]{0,8}"""

# One look at what follows a name spares most of them the three.
_SOON = r"""(?=[ \t\\"':=%])"""
# What stands where a value is expected, but is a structure with values of its own.
_STRUCTURE = r"""[\[({]++(?:[bru]{0,2}\\*+["']|\s|\Z)"""

_FIELD = re.compile(
    r"(?P<name>(?:authorization|cookies?|dpop|x[-_](?:[a-z0-9]{1,16}[-_]){1,3}+key|x[-_]auth[-_]token"
    r"|x[-_]gateway[-_]assertion)"
    # After a quoted name: a list or a dict of values, also over several lines, or a
    # literal. After a bare one: the rest of the line, because the value of a field may
    # hold anything that a shorter end could be mistaken for.
    rf"{_SOON}(?:{_AFTER_QUOTE}(?P<quoted>)|{_EQUALS}|{_COLON})|<cookie[ ])"
    rf"""(?(quoted)(?:[\[({{](?:\s*+{_literal("one")}\s*+[,:]?+)*+[^\n]*+"""
    rf"""|(?P<literal>{_literal("two")})|[^\r\n]++)|[^\r\n]++)""",
    re.IGNORECASE,
)
# Of a parameter: a list of literals, a literal, or a word.
_VALUE = (
    rf"""(?:[\[(](?:\s*+{_literal("one")}\s*+,?+)++[\])]?"""
    # After a bare name the quote may be part of the value, which then goes on.
    rf"""|(?P<literal>{_literal("two")})(?(quoted)|[^\s&]*+)"""
    rf"""|(?!{_STRUCTURE})[^\s&]++)"""
)
_PARAMETER = re.compile(
    r"(?P<name>(?:pass(?:word|wd|phrase)|pwd|secret|token(?:_hint)?|jwt|credentials?"
    r"|assertion|(?:api|access|private)[-_]?key|code_verifier|saml(?:response|request)"
    r"|otp|(?:device|user|auth|authorization)_code)"
    rf"{_SOON}(?:{_AFTER_QUOTE}(?P<quoted>)|{_EQUALS}|{_COLON})){_VALUE}",
    re.IGNORECASE,
)
_PARAMETER_WORDS = (
    *("pass", "pwd", "secret", "token", "jwt", "credential", "assertion", "key"),
    *("code_", "_code", "saml", "otp"),
)
# Words that must stand alone, and without the bare colon: neither "status_code=404" nor
# "state: open" tells anything. The end of an escape is no part of the word.
_LONELY_WORDS = ("code", "state", "nonce", "ticket")
_LONELY = re.compile(
    rf"(?P<name>(?:{'|'.join(_LONELY_WORDS)}){_SOON}(?:"
    + "|".join(
        rf"(?<![a-z0-9_-]{word})|(?<=%[0-9a-f][0-9a-f]{word})"
        rf"|(?<=%25[0-9a-f][0-9a-f]{word})"
        for word in _LONELY_WORDS
    )
    + rf")(?:{_AFTER_QUOTE}(?P<quoted>)|{_EQUALS})){_VALUE}",
    re.IGNORECASE,
)
# The private members of a JWK (RFC 7518 section 6); single letters, so quoted only.
_JWK = re.compile(
    rf"""(?P<name>["'](?:d|k|p|q|dp|dq|qi){_QUOTE}\s{{0,8}}:\s{{0,8}})"""
    rf"""(?P<literal>{_literal("two")})"""
)

_SCHEME = re.compile(
    r"""(?P<name>(?:bearer|basic|dpop)(?:[ \t]{1,8}|%20|\+))[^\s"'&]{12,}+""",
    re.IGNORECASE,
)
# `{"`, or `{` with white space after it, in base64url; a JWE has five parts.
_JOSE = re.compile(
    r"eyJ[\w-]{5,}+(?:(?:\.|%2e)[\w-]*+)*+=*+"
    r"|(?<![\w-])e[wy][\w-]{10,}+(?:\.[\w-]*+){2,4}+=*+"
    r"|gAAAAA[\w-]{20,}+=*+",  # Fernet: version 0x80, and a time before 2106
    re.ASCII,
)
# An API key but for its prefix, which says what it was; also one that is cut short.
_API_KEY = re.compile(
    r"(?:_|%5f)[0-9a-z]{12}(?:_|%5f)[0-9a-z]{24,}+", re.ASCII | re.IGNORECASE
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,64}-----.*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)", re.DOTALL
)
# The user part of a URL goes up to the last @ of the authority; in a store's URL up to
# the last @ of all, because its password may be one that should have been escaped.
_URL = re.compile(
    r"""(?P<scheme>(?:rediss?(?:\+\w{1,16})?|unix)://)(?P<rest>[^\s"'<>]++)"""
    r"""|://(?P<authority>[^\s/?#"'<>\\]++)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return *text* without the secrets in it."""
    low = text.lower()
    for words, pattern, replace in _PASSES:
        for word in words:
            if word in low:
                text = pattern.sub(replace, text)
                break
    return text


def _after_name(found: re.Match[str]) -> str:
    """Mask the value; leave its quotes, if it had both."""
    name: str = found["name"]
    literal = found.groupdict().get("literal")
    if literal is None:
        return name + MASK
    quote: str = found["two"]
    start = literal.index(quote) + len(quote)
    end = (
        quote if literal.endswith(quote) and len(literal) >= start + len(quote) else ""
    )
    return name + literal[:start] + MASK + end


def _in_url(found: re.Match[str]) -> str:
    text: str = found[0]
    _, at, rest = text.rpartition("@")
    if not at:
        return text
    return f"{found['scheme'] or '://'}{MASK}@{rest}"


_PASSES: tuple[
    tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...
] = (
    (("-----begin ",), _PEM, MASK),
    (("authorization", "cookie", "dpop", "x-", "x_"), _FIELD, _after_name),
    (("://",), _URL, _in_url),
    (("bearer", "basic", "dpop"), _SCHEME, rf"\g<name>{MASK}"),
    (("eyj", "ew", "ey", "gaaaaa"), _JOSE, MASK),
    (("_", "%5f"), _API_KEY, MASK),
    (_PARAMETER_WORDS, _PARAMETER, _after_name),
    (_LONELY_WORDS, _LONELY, _after_name),
    (('":', "':"), _JWK, _after_name),
)
