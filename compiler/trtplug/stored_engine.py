"""``torch.ops.trtplug.stored_engine``: a call of an engine that carries it, so that Torch's own formats can hold it.

    stored_engine(Tensor[] inputs, Tensor data, str signature, SymInt[] sizes=[], str executor="auto") -> Tensor[]

``data`` is a uint8 tensor, the file that `trtplug.artefacts.engines.write_engine` writes: the plan, and what the
network means. ``signature`` is JSON: the engine's name, the SHA-256 of ``data``, and dtypes and sizes of inputs and
outputs, from which shapes follow without running anything. ``executor`` is as in `trtplug.compile`.

Torch imports this module itself (entry-point group ``torch.backends``), so that files whose graphs call the op load
with nothing but ``import torch``. It must stay cheap to import, and must need nothing but Torch for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from trtplug.engine import CompiledEngine

SCHEMA = (
    'stored_engine(Tensor[] inputs, Tensor data, str signature, SymInt[] sizes=[], str executor="auto") -> Tensor[]'
)

_LIBRARY = torch.library.Library("trtplug", "FRAGMENT")
_PREPARED: dict[tuple[str, str, str], tuple[Any, Callable[..., Any]]] = {}
"""Run functions by digest, executor and device, each as long as its data lives. The op is stateless; this is a memo."""


def register() -> None:
    """What the entry point calls; importing this module has registered the op already, once a process."""


def packed(engine: CompiledEngine) -> tuple[torch.Tensor, str]:
    """An engine as the op's ``data`` and ``signature``.

    Returns:
        uint8[bytes] on the CPU, and JSON.

    Raises:
        Malformed: the engine's reference holds something that a file cannot hold.
    """
    import hashlib
    import io
    import json

    from trtplug.artefacts.engines import binding_to_json, write_engine
    from trtplug.versions import versions

    file = io.BytesIO()
    write_engine(file, engine, versions())
    data = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    signature = {
        "name": engine.name,
        "sha256": hashlib.sha256(file.getbuffer()).hexdigest(),
        "inputs": [binding_to_json(binding) for binding in engine.input_bindings],
        "outputs": [binding_to_json(binding) for binding in engine.output_bindings],
    }
    return data, json.dumps(signature)


def unpacked(data: torch.Tensor, signature: str) -> CompiledEngine:
    """The engine in the op's ``data``.

    Raises:
        ArtefactError: the data is not what the signature says, or damaged.
    """
    import io

    from trtplug.artefacts.engines import read_engine
    from trtplug.artefacts.malformed import Malformed
    from trtplug.errors import ArtefactError

    content = check(data, signature)
    try:
        return read_engine(io.BytesIO(content))
    except Malformed as error:
        raise ArtefactError(_where(signature), error.what, error.member) from error


def check(data: torch.Tensor, signature: str) -> memoryview:
    """The bytes of the op's ``data``, once they are what the signature says.

    Raises:
        ArtefactError: they are not.
    """
    import hashlib

    from trtplug.errors import ArtefactError

    content = memoryview(data.cpu().contiguous().numpy())  # type: ignore[arg-type]  # an array is a buffer
    if hashlib.sha256(content).hexdigest() != _described(signature)["sha256"]:
        raise ArtefactError(_where(signature), "its SHA-256 is not the signature's: it was changed or damaged")
    return content


def _where(signature: str) -> str:
    return f"the data of {_described(signature)['name']}"


def _described(signature: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(signature)
    return found


# --- running ----------------------------------------------------------------------------------------------------------


def _run(
    inputs: Sequence[torch.Tensor],
    data: torch.Tensor,
    signature: str,
    sizes: Sequence[int] = (),
    executor: str = "auto",
) -> list[torch.Tensor]:
    device = inputs[0].device.type if inputs else "cpu"
    known = _PREPARED.get((signature, executor, device))
    if known is None or known[0].expired():
        known = _prepare(data, signature, executor, device)
    results = known[1](*inputs, *sizes)
    taken = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    # an op's results share no memory with its arguments
    return [result.clone() if result.untyped_storage().data_ptr() in taken else result for result in results]


def _prepare(data: torch.Tensor, signature: str, executor: str, device: str) -> tuple[Any, Callable[..., Any]]:
    from torch.multiprocessing.reductions import StorageWeakRef

    from trtplug.executors import installed_executor

    run = installed_executor(executor, device).prepare(unpacked(data, signature))
    for key in [key for key, (owner, _) in _PREPARED.items() if owner.expired()]:
        _PREPARED.pop(key, None)
    known = _PREPARED[signature, executor, device] = StorageWeakRef(data.untyped_storage()), run
    return known


def _without_gradient(*args: Any, **kwargs: Any) -> Any:
    """An engine has no gradient: its results ask for none, as when it is called in the process that built it."""
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.trtplug.stored_engine.default(*args, **kwargs)


def _fake(
    inputs: Sequence[torch.Tensor],
    data: torch.Tensor,
    signature: str,
    sizes: Sequence[Any] = (),
    executor: str = "auto",
) -> list[torch.Tensor]:
    from trtplug.artefacts.engines import binding_from_json
    from trtplug.engine_op import Registered, result_shapes

    described = _described(signature)
    takes, gives = (list(map(binding_from_json, described[key])) for key in ("inputs", "outputs"))
    shapes = result_shapes(Registered(takes, gives, _unused, ""), inputs, sizes)
    device = inputs[0].device if inputs else data.device
    return [torch.empty(shape, dtype=b.facts.dtype, device=device) for shape, b in zip(shapes, gives, strict=True)]


def _unused(*_: Any) -> tuple[torch.Tensor, ...]:
    raise AssertionError("shapes follow without running anything")


def register_fake(op: str, fake: Callable[..., Any], library: torch.library.Library) -> None:
    """Registers an op's fake implementation, for whatever module.

    Torch looks for the source of who asks, among all modules that are loaded, and remembers the files it has seen: that
    is done while Torch itself is imported, from here; a tenth of a second goes by where it is done later.
    """
    torch.library.register_fake(op, fake, lib=library)


_LIBRARY.define(SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
_LIBRARY.impl("stored_engine", _run, "CompositeExplicitAutograd")
_LIBRARY.impl("stored_engine", _without_gradient, "Autograd")
register_fake("trtplug::stored_engine", _fake, _LIBRARY)
