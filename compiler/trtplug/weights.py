"""New weights for a compiled module: what holds them is built again, and nothing else."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export import ExportedProgram

from trtplug.cache import Kept
from trtplug.cache.kept import same_data
from trtplug.errors import WeightsError
from trtplug.settings import Settings
from trtplug.tracing import Program
from trtplug_registry import Reason, Registry, unknown_name

if TYPE_CHECKING:
    from trtplug.compiled import CompiledModule
    from trtplug.engine import EngineModule


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a module was compiled from, kept so that it can be compiled again with other weights.

    Attributes:
        program: shares the model's tensors until they are replaced.
        settings, registry: as they were.
        kept: the engines, and what they are made of.
        quarantine: names of nodes that failed to convert or build, and why.
    """

    program: Program
    settings: Settings
    registry: Registry
    kept: Kept
    quarantine: Mapping[str, Reason]


def updated(
    recipe: Recipe | None, runners: Sequence[EngineModule], new: Mapping[str, Any]
) -> tuple[CompiledModule, tuple[str, ...]]:
    """The module that a recipe makes with other weights, and the names of its engines that are new.

    Raises:
        UnknownNameError, WeightsError: as `with_weights`; or there is no recipe.
        TrtplugError: an engine cannot be built, under ``on_failure="raise"``.
    """
    from trtplug.compilation import Compilation

    if recipe is None:
        raise WeightsError(
            "this module takes no new weights: it was loaded from a file, or copied. Compile the model with them, or"
            " update the module that trtplug.compile returned"
        )
    program = with_weights(recipe.program, new)
    run = Compilation(recipe.settings, recipe.registry, None, recipe.kept, recipe.quarantine)
    made = run.finish(program, runners)
    before = {id(engine.plan) for engine in recipe.kept.engines}
    return made, tuple(engine.name for engine in made.engines if id(engine.plan) not in before)


def with_weights(program: Program, new: Mapping[str, Any]) -> Program:
    """The program with other values for some entries of its state dict. It is not changed, nor are its tensors.

    What shares memory with an entry that is given (a tied weight, a view) sees the new values too.

    Args:
        new: values by the names of the model's ``state_dict``; what is not named stays as it is.

    Raises:
        UnknownNameError: a name is none of the state dict's.
        WeightsError: a value is no tensor, or of another shape or dtype; or two entries share memory and are given
            values that contradict each other.
    """
    exported = program.exported
    state = exported.state_dict
    _check(state, new)
    replaced = _Replaced([state[name] for name in new])
    changed: ExportedProgram = copy.copy(exported)
    changed._state_dict = {name: replaced.of(value) for name, value in state.items()}
    changed._constants = {name: replaced.of(value) for name, value in exported.constants.items()}
    with torch.no_grad():
        for name, value in new.items():
            changed._state_dict[name].copy_(value)
    for name, value in new.items():
        held = changed._state_dict[name].detach()
        if not same_data(held, value.detach().to(held.device)):
            raise WeightsError(f"{name!r} shares memory with another weight that is given other values")
    return dataclasses.replace(program, exported=changed)


def _check(state: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        if name not in state:
            raise unknown_name("weight", name, state)
        old = state[name]
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"{name!r} is a {type(value).__name__}; a tensor {_words(old)} is expected")
        if (value.dtype, value.shape) != (old.dtype, old.shape):
            advice = "compile the model anew for other shapes or dtypes"
            raise WeightsError(f"{name!r} is {_words(value)}; {_words(old)} is expected: {advice}")


def _words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


class _Replaced:
    """Tensors over copies of some memory: each storage is copied once, however many tensors look at it."""

    def __init__(self, given: Sequence[torch.Tensor]) -> None:
        self._memory = {tensor.untyped_storage()._cdata: tensor.untyped_storage().clone() for tensor in given}
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """The value itself, or what stands for it where its memory was copied."""
        memory = self._memory.get(value.untyped_storage()._cdata) if isinstance(value, torch.Tensor) else None
        if memory is None:
            return value
        if id(value) not in self._made:
            made = torch.empty(0, dtype=value.dtype, device=value.device)
            made.set_(memory, value.storage_offset(), value.size(), value.stride())
            parameter = isinstance(value, nn.Parameter)
            self._made[id(value)] = nn.Parameter(made, requires_grad=value.requires_grad) if parameter else made
        return self._made[id(value)]
