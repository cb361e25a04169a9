"""The settings of a compilation: one small frozen value, every field of which a user can have an opinion on."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trtplug.control import choices
from trtplug.errors import SettingsError
from trtplug_registry import unknown_name

if TYPE_CHECKING:  # the command line describes settings without waiting for Torch
    from trtplug_registry import RunOptions

ON_FAILURE = ("fallback", "raise")
WEIGHT_CHECKS = ("auto", "version", "data")
PRECISIONS = ("keep", "float16", "bfloat16", "float32")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to compile.

    Attributes:
        min_block_size: blocks with fewer compute nodes than this stay in Torch.
        torch_ops: ops (``"aten::add"``, or one overload, ``"aten::add.Tensor"``) and module paths
            (``"encoder.layer.0"``) that stay in Torch.
        prefer: names of plugins whose converters come first, in this order.
        block: names of plugins that are not even imported.
        executor: ``"auto"``, or an executor's name (``"reference"``, ``"tensorrt"``).
        on_failure: what to do where a converter raises or TensorRT refuses a block: ``"fallback"`` leaves the node to
            Torch with a warning, ``"raise"`` raises.
        tf32: let a GPU round the operands of float32 products to TF32. Off, as in Torch. With TensorRT-RTX the first
            compilation of a process decides for all; see ``docs/gpu.md``.
        workspace_bytes: most scratch memory that an engine may use; None leaves TensorRT's own default.
        strict_plugins: raise where a plugin would be disabled, refused for a conflict or a domain that cannot be asked,
            or its converter or pass fails, each of which otherwise costs a warning.
        disable_passes: ids of lowering passes that do not run (``"trtplug-passes:no-ops"``).
        enable_passes: ids of lowering passes that run although a plugin disables them.
        pass_order: ``"a:x < b:y"``: the lowering pass ``a:x`` runs before ``b:y``, whatever anybody else says.
        precision: what floats are computed in: ``"float16"``, ``"bfloat16"``, ``"float32"`` (double-precision models
            too), or ``"keep"`` (None) for the model's own dtypes. Inputs and outputs keep theirs, and range-sensitive
            ops are computed in float32.
        precision_exclude: ops, module paths and ``"re:…"`` regular expressions that `precision` leaves as they are.
        precision_include: the same, for what is computed in `precision` although it is range-sensitive.
        weight_streaming: build engines whose weights need not all be on the GPU at once. See ``docs/performance.md``.
        weight_budget_bytes: most bytes of each engine's weights that stay on the GPU between calls; a call copies the
            others there as it needs them. None keeps all of them there. Needs `weight_streaming` and the executor
            ``tensorrt``.
        profiles: ranges of sizes that each engine is tuned for one by one, such as ``"batch=1"`` and
            ``"batch=2..8..32"``. Sizes that none of them holds are refused. See ``docs/performance.md``.
        cuda_graphs: replay an engine's call as a CUDA graph where its shapes come again. Results are new tensors all
            the same. Needs the executor ``tensorrt``; see ``docs/gpu.md``.
        cache_dir: a folder where finished engines are kept, and found again by all that they were made of, or None. On
            a GPU also the kernels that TensorRT-RTX compiles for them.
        cache_bytes: most bytes that the entries of `cache_dir` may have; those not used for longest go first.
        weight_check: how ``torch.compile`` notices, at each call, that a parameter is no longer what was compiled: by
            its identity, address and version (``"version"``), and by sums over its data too (``"data"``), which tell
            writes through ``parameter.data`` as well. ``"auto"`` is the second on the CPU, the first on a GPU.
        verify: run the graph after every lowering pass and compare; names the first pass that changes a result.
        dump_graphs: a folder where the graph is written after every lowering pass that changes it, or "".
    """

    min_block_size: int = 3
    torch_ops: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    executor: str = "auto"
    on_failure: str = "fallback"
    tf32: bool = False
    workspace_bytes: int | None = None
    strict_plugins: bool = False
    disable_passes: tuple[str, ...] = ()
    enable_passes: tuple[str, ...] = ()
    pass_order: tuple[str, ...] = ()
    precision: str = "keep"
    precision_exclude: tuple[str, ...] = ()
    precision_include: tuple[str, ...] = ()
    weight_streaming: bool = False
    weight_budget_bytes: int | None = None
    profiles: tuple[str, ...] = ()
    cuda_graphs: bool = False
    cache_dir: str | None = None
    cache_bytes: int = 10 * 2**30
    weight_check: str = "auto"
    verify: bool = False
    dump_graphs: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Settings from options by name.

        Which plugins and ops to use (``prefer``, ``block``, ``torch_ops``, ``strict_plugins``) is taken from the
        environment, and then from ``pyproject.toml``, where the options do not say: see `trtplug.control`.

        Raises:
            UnknownNameError: an option does not exist; the message suggests the nearest that does.
            SettingsError: a value is of the wrong type or out of range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in options:
            if name not in fields:
                raise unknown_name("option", name, fields)
        made = {name: _checked(name, value, fields[name].default) for name, value in options.items()}
        return cls(**{**{name: choice.value for name, choice in choices().items()}, **made})

    def __post_init__(self) -> None:
        if self.min_block_size < 1:
            raise SettingsError(f"min_block_size={self.min_block_size}: must be at least 1")
        if self.on_failure not in ON_FAILURE:
            raise SettingsError(f"on_failure={self.on_failure!r}: must be one of {', '.join(ON_FAILURE)}")
        if self.weight_check not in WEIGHT_CHECKS:
            raise SettingsError(f"weight_check={self.weight_check!r}: must be one of {', '.join(WEIGHT_CHECKS)}")
        if self.cache_bytes <= 0:
            raise SettingsError(f"cache_bytes={self.cache_bytes}: must be positive")
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise SettingsError(f"workspace_bytes={self.workspace_bytes}: must be positive, or None")
        if self.weight_budget_bytes is not None and self.weight_budget_bytes < 0:
            raise SettingsError(f"weight_budget_bytes={self.weight_budget_bytes}: must be 0 or more, or None")
        if self.weight_budget_bytes is not None and not self.weight_streaming:
            raise SettingsError(
                f"weight_budget_bytes={self.weight_budget_bytes}: has no effect without weight_streaming=True"
            )
        if self.weight_streaming:
            from trtplug._tensorrt import check_streaming

            check_streaming()
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        if self.profiles:
            from trtplug.profiles import parsed

            for text in self.profiles:
                parsed(text)
        for name in ("precision_exclude", "precision_include"):
            self._check_selection(name, getattr(self, name))

    @property
    def run_options(self) -> RunOptions:
        """What executors are told."""
        from trtplug_registry import RunOptions

        return RunOptions(self.cuda_graphs, self.cache_dir, self.cache_bytes, self.weight_budget_bytes)

    def _check_selection(self, name: str, names: tuple[str, ...]) -> None:
        if not names:
            return
        if self.precision == "keep":
            raise SettingsError(f"{name}={list(names)}: has no effect without precision")
        from trtplug_registry import Selection

        try:
            Selection(names)
        except re.error as error:
            raise SettingsError(f"{name}: {error.pattern!r} is no regular expression: {error}") from error


def _checked(name: str, value: Any, default: Any) -> Any:
    if name == "precision":
        value = "keep" if value is None else str(value).removeprefix("torch.")
    if name == "dump_graphs" and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if name == "cache_dir" and value is not None:
        if not isinstance(value, str | os.PathLike) or not os.fspath(value):
            raise SettingsError(f"{name}={value!r}: must be the path of a folder, or None")
        return os.fspath(value)
    if isinstance(default, tuple):
        listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        value = tuple(value) if listed else value
        if not listed or not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{name}={value!r}: must be a list of names")
        return value
    wanted = (int, type(None)) if default is None else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and default is not True and default is not False):
        kind = "an int or None" if default is None else f"{'an' if wanted is int else 'a'} {type(default).__name__}"
        raise SettingsError(f"{name}={value!r}: must be {kind}")
    return value
