"""What an exchange is asked to send."""

from typing import Final, final

from ztproxy.model.native import mypyc_attr


@final
@mypyc_attr(acyclic=True)
class Request:
    """What is sent first, and what has to be known about it."""

    __slots__ = (
        "bound", "complete", "data", "framed", "head_only", "replayable", "trailers", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        data: bytes,
        complete: bool,
        replayable: bool,
        head_only: bool = False,
        framed: bool = True,
        upgrade: bool = False,
        trailers: bool = False,
        bound: bool = False,
    ) -> None:
        self.data: Final = data  # the head and the body bytes that are there already
        self.complete: Final = complete  # that is the whole request
        self.replayable: Final = replayable  # sending it twice does no harm: idempotent and complete
        self.head_only: Final = head_only  # HEAD: the response has no body
        self.framed: Final = framed  # pass bodies of unknown length on as chunks
        self.upgrade: Final = upgrade  # 101 is an answer
        self.trailers: Final = trailers  # pass fields after the body on
        self.bound: Final = (
            bound  # credentials of the connection, or content it may leave unread: never pool it
        )
