"""What an exchange is asked to send."""

from msgspec import Struct


class Request(Struct, frozen=True, gc=False):
    """What is sent first, and what has to be known about it."""

    data: bytes  # the head and the body bytes that are there already
    complete: bool  # that is the whole request
    replayable: bool  # sending it twice does no harm: idempotent and complete
    head_only: bool = False  # HEAD: the response has no body
    framed: bool = True  # pass bodies of unknown length on as chunks
    upgrade: bool = False  # 101 is an answer
    trailers: bool = False  # pass fields after the body on
    bound: bool = False  # credentials of the connection, or content it may leave unread: never pool it
