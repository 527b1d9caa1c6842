"""What an exchange reports to whoever asked for it. The gateway's relay and tunnel implement it."""

from abc import abstractmethod

from ztproxy.model.native import mypyc_attr
from ztproxy.wire.http1 import ResponseHead


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver:
    """Takes a response as it comes. Only `flow` may be called from within a call to the exchange."""

    __slots__ = ()

    @abstractmethod
    def responded(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """A response head with the body bytes that came along; once, besides interim ones (1xx)."""

    @abstractmethod
    def received(self, body: bytes, ended: bool) -> None:
        """More of the body; with `ended`, all of it has been received."""

    @abstractmethod
    def failed(self, code: str, flaw: str = "") -> None:
        """The exchange is over without a complete response; `code` is one of model.codes, `flaw` of
        wire.flaws."""

    @abstractmethod
    def flow(self, full: bool) -> None:
        """The upstream takes no more bytes for now (`full`), or takes bytes again."""
