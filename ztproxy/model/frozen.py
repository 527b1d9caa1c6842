"""What a request is made of while it is under way: values that are never written down or sent anywhere.

Where the hot path is compiled their attributes are slots of C, and can not be set again; reading one of a
msgspec Struct from compiled code costs ten times as much. Values that are encoded somewhere are Structs.
"""

from typing import Any, ClassVar, Self

from ztproxy.model.native import mypyc_attr


@mypyc_attr(acyclic=True)
class Frozen:
    """The base of such values. `FIELDS` names what `__init__` takes, in order."""

    __slots__ = ()

    FIELDS: ClassVar[tuple[str, ...]] = ()

    def values(self) -> tuple[Any, ...]:
        """Return the values of all fields, in order."""
        return tuple([getattr(self, name) for name in self.FIELDS])

    def replaced(self, **changes: Any) -> Self:
        """Return the same with some fields changed. Raises TypeError for fields it does not have."""
        return type(self)(**{**dict(zip(self.FIELDS, self.values(), strict=True)), **changes})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    def __repr__(self) -> str:
        said = ", ".join(
            [f"{name}={value!r}" for name, value in zip(self.FIELDS, self.values(), strict=True)]
        )
        return f"{type(self).__name__}({said})"
