"""The seal that makes a Permit genuine.

Only `ztproxy.model.permit` (which checks it) and `ztproxy.administrator.access` (which holds the door)
may import this module; import-linter's contract "only the access door mints permits" keeps it so.
"""

from types import FunctionType
from typing import Any, Final


class Seal:
    """A type with exactly one instance, compared by identity."""

    __slots__ = ()


SEAL: Final = Seal()


def closed(made: type) -> None:
    """Have nobody but its own `__init__` set attributes of a class, and nobody inherit from it.

    Compiled classes are like that from the start.
    """
    begin = made.__dict__["__init__"]
    if not isinstance(begin, FunctionType):
        return
    making: list[object] = []

    def init(self: object, *args: Any, **values: Any) -> None:
        if any(one is self for one in making):
            raise TypeError("made already")
        making.append(self)
        try:
            begin(self, *args, **values)
        finally:
            making.pop()

    def set_once(self: object, name: str, value: object) -> None:
        if all(one is not self for one in making) or hasattr(self, name):
            raise AttributeError(f"{name} can not be set")
        object.__setattr__(self, name, value)

    def unset(self: object, name: str) -> None:
        raise AttributeError(f"{name} can not be deleted")

    def inherit(cls: type, **options: Any) -> None:
        raise TypeError(f"nothing inherits from {made.__name__}")

    made.__init__ = init  # type: ignore[misc]
    made.__setattr__ = set_once  # type: ignore[method-assign,assignment]
    made.__delattr__ = unset  # type: ignore[method-assign,assignment]
    made.__init_subclass__ = classmethod(inherit)  # type: ignore[assignment,arg-type]
