"""The registry's answer about a node: `Supported`, or `Unsupported` with the reasons."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from trtplug_registry.conversion import Converter


class ReasonCode(enum.StrEnum):
    """Why a node is not in TensorRT. The values are stable: programs may match on them."""

    NO_CONVERTER = "no-converter"
    DTYPE = "dtype"
    RANK = "rank"
    ZERO_SIZE = "zero-size"
    DYNAMIC_SHAPE = "dynamic-shape"
    ARGUMENT = "argument"
    RELATION = "relation"
    BODY = "body"
    OUTPUT_USED = "output-used"
    EXCLUDED_BY_USER = "excluded-by-user"
    CONFLICT = "conflict"
    TENSORRT_VERSION = "tensorrt-version"
    DATA_DEPENDENT_SHAPE = "data-dependent-shape"
    NO_METADATA = "no-metadata"
    CONVERSION_FAILED = "conversion-failed"
    BUILD_FAILED = "build-failed"
    BLOCK_TOO_SMALL = "block-too-small"
    NOT_INTERFACEABLE = "not-interfaceable"
    NOT_COMPILED = "not-compiled"


@dataclasses.dataclass(frozen=True)
class Reason:
    """One requirement that a node does not meet.

    Attributes:
        code: stable and machine-readable.
        argument: the schema's name of the argument at fault, or "" where the whole node is.
        required: what would be accepted, in words.
        seen: what was found instead, in words.
        because: why the requirement exists, in words, where its declaration says so.
        converter: who refuses, as ``plugin:target``, or "" where nobody claims the op.
    """

    code: ReasonCode
    argument: str = ""
    required: str = ""
    seen: str = ""
    because: str = ""
    converter: str = ""

    def __str__(self) -> str:
        subject = f"{self.argument}: " if self.argument else ""
        text = f"{self.code.value}: {subject}{self.seen}"
        if self.required:
            text += f", but needs {self.required}"
        if self.because:
            text += f" ({self.because})"
        return f"{text} [{self.converter}]" if self.converter else text

    def to_json(self) -> dict[str, str]:
        return {field.name: str(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Supported:
    """This converter takes the node."""

    converter: Converter
    reasons: ClassVar[tuple[Reason, ...]] = ()

    def __bool__(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class Unsupported:
    """Nobody takes the node, and this is why; at least one reason."""

    reasons: tuple[Reason, ...]
    converter: ClassVar[None] = None

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons))


Support = Supported | Unsupported


def refuse(code: ReasonCode, **facts: Any) -> Unsupported:
    """An `Unsupported` with a single reason."""
    return Unsupported((Reason(code, **facts),))
