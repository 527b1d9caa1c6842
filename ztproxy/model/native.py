"""Decorators for classes that stand between rooms, so that compiled code calls them without looking names up.

Used by ports: a class that says what one room needs of another. Where the hot path is compiled, a call of
what inherits from it is a call of C; of a `Protocol` the method is searched by name each time, at twenty
times the cost. Without a compiler these say nothing, and mypy_extensions need not be there.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr, trait
else:
    Made = TypeVar("Made", bound=type)

    def mypyc_attr(**said: bool) -> Callable[[Made], Made]:
        """Say something about a class. `allow_interpreted_subclasses`: fakes of tests may inherit from it.
        `acyclic`: nothing in its values leads back to them, so the collector need not know them."""
        return lambda made: made

    def trait(made: Made) -> Made:
        """Let a class be one base of several. Only compiled classes inherit from it then."""
        return made


__all__ = ["mypyc_attr", "trait"]
