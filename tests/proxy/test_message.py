"""Heads and chunks, byte for byte."""

from __future__ import annotations

from gateway.proxy import message


def test_a_request_line_holds_the_target_as_it_was_decided() -> None:
    """R11: no byte of the target is read again."""
    fields = [(b"a", b"1"), message.content_length(3)]
    passed = message.lines([(b"x", b"y"), (b"z", b"")])
    assert message.request_lines(b"GET", b"/a%20b/?q=%41", b"shop", passed, fields) == (
        b"GET /a%20b/?q=%41 HTTP/1.1\r\nhost: shop\r\nx: y\r\nz: \r\n"
        b"a: 1\r\ncontent-length: 3\r\n"
    )


def test_a_status_line_has_our_words() -> None:
    """The phrase of an upstream goes nowhere; an unknown status has none."""
    assert message.answer_head(404, [message.CLOSE]) == (
        b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n"
    )
    assert message.answer_head(299, [message.KEEP_ALIVE]).startswith(
        b"HTTP/1.1 299 \r\n"
    )


def test_a_chunk_is_framed_anew() -> None:
    """RFC 9112 section 7.1: size in hex, no extensions, no trailers."""
    assert message.chunk(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"
    assert message.LAST_CHUNK == b"0\r\n\r\n"
