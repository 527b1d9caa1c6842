"""What all sections of the configuration file have in common. Used by the modules that define them."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, strict, no unknown keys, and no input in errors: it could be a secret."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        validate_default=False,
    )
