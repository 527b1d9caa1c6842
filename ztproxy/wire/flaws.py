"""What can be wrong with a message, as stable words for the record: never a byte of the message itself.

`wire.heads`, `wire.body` and `gateway.http` name them; reviewers read them as `detail` of a record. Words are
only ever added. `docs/reference/http.md` lists them all.
"""

import re
from typing import Final

#: Word -> (code of model.codes that a request with it gets, what it means). A response with the same flaw is
#: answered with `upstream-invalid`.
FLAWS: Final[dict[str, tuple[str, str]]] = {
    # lines
    "bare-lf": ("bad-request", "a line ends without CR"),
    "bare-cr": ("bad-request", "a CR stands within a line"),
    "control-character": ("bad-request", "a line holds NUL or another control character"),
    "folded-line": ("bad-request", "a header line begins with a space or tab (obs-fold)"),
    "no-colon": ("bad-request", "a header line has no colon"),
    "empty-name": ("bad-request", "a header line has no name"),
    "space-before-colon": ("bad-request", "a space or tab stands before the colon"),
    "odd-name": ("bad-request", "a header name is no token, or longer than 128 bytes"),
    "empty-line": ("bad-request", "an empty line stands where the first line should"),
    "request-line": ("bad-request", "the first line is no request line"),
    "status-line": ("bad-request", "the first line of a response is no status line"),
    "method-name": ("bad-request", "the method is not made of 1 to 32 capital letters and dashes"),
    "http-version": ("bad-request", "the version is neither HTTP/1.1 nor HTTP/1.0"),
    "long-head": ("head-too-large", "the head is longer than `limits.head`"),
    "many-fields": ("head-too-large", "the head has more than 100 header lines"),
    "slow-body": ("request-timeout", "the body came slower than `limits.body_min_rate`"),
    "incomplete-head": ("request-timeout", "the head did not arrive in time, or its sender went away"),
    # framing
    "two-content-length": ("bad-request", "Content-Length comes twice"),
    "odd-content-length": ("bad-request", "Content-Length is not one plain decimal number"),
    "length-and-coding": ("bad-request", "Content-Length and Transfer-Encoding come together"),
    "transfer-coding": ("bad-request", "Transfer-Encoding is not exactly `chunked`"),
    "coding-in-http-1.0": ("bad-request", "Transfer-Encoding in HTTP/1.0"),
    "chunk-size": ("bad-request", "a chunk's size line is malformed"),
    "chunk-end": ("bad-request", "a chunk does not end where its size says"),
    "trailer-line": ("bad-request", "a trailer line is malformed"),
    "long-line": ("bad-request", "a line between chunks is longer than 4096 bytes"),
    "surplus": ("bad-request", "chunk extensions and trailers of more than 16384 bytes"),
    # fields
    "host": ("bad-request", "Host is missing or no host"),
    "two-hosts": ("bad-request", "Host comes twice"),
    "repeated-field": ("bad-request", "a field that must be single comes twice"),
    "expectation": ("bad-request", "an expectation other than 100-continue"),
    "method-override": ("bad-request", "a header that asks for another method than the one authorized"),
    "two-session-cookies": ("credentials-conflict", "a session cookie of ours comes twice"),
    "websocket-handshake": ("bad-request", "the WebSocket handshake does not keep to RFC 6455"),
    # target
    "method": ("method-not-supported", "CONNECT or TRACE"),
    "target-form": ("bad-request", "the target is neither a path, nor this host's https URL, nor OPTIONS *"),
    "other-authority": ("bad-request", "the URL in the request line and Host disagree, or it is not https"),
    "max-forwards": ("method-not-supported", "OPTIONS with Max-Forwards that ends here: 0, or no number"),
    "fragment": ("ambiguous-path", "a # in the target"),
    "backslash": ("ambiguous-path", "a backslash in the path"),
    "semicolon": ("ambiguous-path", "a semicolon in the path"),
    "empty-segment": ("ambiguous-path", "// in the path"),
    "dot-segment": ("ambiguous-path", "/./ or /../ in the path"),
    "percent-code": (
        "ambiguous-path",
        "a percent code in the path is malformed, not needed or not upper-case",
    ),
    "encoded-delimiter": ("ambiguous-path", "a control character or one of / \\ ; % as a percent code"),
    "not-utf-8": ("ambiguous-path", "the decoded path is not UTF-8"),
    "odd-character": ("ambiguous-path", "a character in the target that no URL holds"),
    # responses
    "interim-flood": ("upstream-invalid", "more than 16 interim responses"),
    "unasked-upgrade": ("upstream-invalid", "101 Switching Protocols that nobody asked for"),
    "upgrade-mismatch": (
        "upstream-invalid",
        "101 to another protocol than was asked for, or without its proof",
    ),
}

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]").search
_METHOD: Final = re.compile(rb"[A-Z-]{1,32}").fullmatch


def of_field_line(line: bytes) -> str:
    """Return what is wrong with a header line (with its ending) that is known to be malformed."""
    flaw = _of_any_line(line)
    if flaw:
        return flaw
    if line[:1] in (b" ", b"\t"):
        return "folded-line"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "no-colon"
    if not name:
        return "empty-name"
    return "space-before-colon" if name[-1:] in (b" ", b"\t") else "odd-name"


def of_request_line(line: bytes) -> str:
    """Return what is wrong with a request line that is known to be malformed."""
    if line == b"\r\n":
        return "empty-line"
    flaw = _of_any_line(line)
    if flaw:
        return flaw
    words = line[:-2].split(b" ")
    if len(words) == 2 or (len(words) == 3 and words[2] not in (b"HTTP/1.1", b"HTTP/1.0")):
        return "http-version"
    return "request-line" if len(words) != 3 or _METHOD(words[0]) else "method-name"


def of_status_line(line: bytes) -> str:
    """Return what is wrong with a status line that is known to be malformed."""
    return _of_any_line(line) or "status-line"


def _of_any_line(line: bytes) -> str:
    if not line.endswith(b"\r\n"):
        return "bare-lf"
    if b"\r" in line[:-2]:
        return "bare-cr"
    return "control-character" if _CONTROL(line[:-2]) else ""
