"""Tensors in one safetensors member: each piece of memory once, whoever uses it, and views of it as they are.

A tensor is described by the piece of memory it lies in, dtype, shape, strides and offset. Tensors that share memory in
the compiled model share it after loading too; equal data in different memory is stored once and loaded apart, so that
writing to one does not change the other. The member itself is plain safetensors
(https://github.com/huggingface/safetensors, "Format"), which is written and read here without a copy of the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from trtplug.artefacts.malformed import Malformed, brief, field, fields, need, of_type, parse, size, sizes
from trtplug.artefacts.values import Place, dtype_name, torch_constant

MEMBER = "tensors.safetensors"
_MAX_HEADER = 100 * 2**20
_ALIGNED = 64
_WIDEST = 16  # complex128

_SAFE_NAMES: Mapping[str, str] = {  # Torch's name of a dtype: safetensors'; others are stored as bytes
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
}
_WIDTHS = {safe: getattr(torch, name).itemsize for name, safe in _SAFE_NAMES.items() if hasattr(torch, name)}


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Piece:
    """A stretch of a storage that some tensors use, in bytes."""

    name: str
    storage: torch.UntypedStorage
    start: int
    end: int
    tensors: list[torch.Tensor]

    @property
    def sole(self) -> torch.Tensor | None:
        """The tensor that the piece is, where it is just that."""
        first = self.tensors[0]
        whole = first.is_contiguous() and first.numel() * first.element_size() == self.end - self.start
        return first if whole and dtype_name(first.dtype) in _SAFE_NAMES else None

    def align(self) -> None:
        """Where elements of several widths lie in it, grow it to a multiple of all of them."""
        if len({tensor.element_size() for tensor in self.tensors}) > 1:
            self.start, self.end = self.start // _WIDEST * _WIDEST, -(-self.end // _WIDEST) * _WIDEST

    def data(self) -> memoryview:
        """The bytes, on the CPU; zeros after the storage's end."""
        count, there = self.end - self.start, min(self.end, self.storage.nbytes()) - self.start
        flat = torch.empty(0, dtype=torch.uint8, device=self.storage.device)
        flat = flat.set_(self.storage, self.start, (there,), (1,)).cpu()
        if there < count:
            flat = nn.functional.pad(flat, (0, count - there))
        return memoryview(flat.numpy())  # type: ignore[arg-type]  # an array is a buffer


class TensorWriter:
    """Collects tensors under names, then describes and writes them."""

    def __init__(self) -> None:
        self._named: list[tuple[str, torch.Tensor]] = []
        self._places: dict[int, int] = {}

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """The tensor's number in the file. The name is for people; the first one of a tensor counts.

        Raises:
            Malformed: it has no memory of the ordinary kind.
        """
        known = self._places.get(id(tensor))
        if known is not None:
            return known
        plain = type(tensor) in (torch.Tensor, nn.Parameter)
        if not plain or tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            kind = f"{type(tensor).__name__}, {tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise Malformed(f"a file cannot hold the tensor {name!r} ({kind}): it has no plain memory")
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        self._places[id(tensor)] = len(self._named)
        self._named.append((name, tensor))
        return len(self._named) - 1

    def finish(self) -> TensorFile:
        pieces = self._pieces()
        return TensorFile(self._named, pieces)

    def _pieces(self) -> list[_Piece]:
        """Each storage's used stretches; those that overlap are one."""
        by_storage: dict[tuple[str, int], list[tuple[int, int, str, torch.Tensor]]] = {}
        for name, tensor in self._named:
            start, end = _extent(tensor)
            key = str(tensor.device), tensor.untyped_storage().data_ptr() if end > start else -len(by_storage) - 1
            by_storage.setdefault(key, []).append((start, end, name, tensor))
        pieces: list[_Piece] = []
        for group in by_storage.values():
            piece: _Piece | None = None
            for start, end, name, tensor in sorted(group, key=lambda item: (item[0], -item[1])):
                if piece is None or start >= piece.end:
                    piece = _Piece(name, tensor.untyped_storage(), start, end, [])
                    pieces.append(piece)
                piece.end = max(piece.end, end)
                piece.tensors.append(tensor)
        for piece in pieces:
            piece.align()
        return pieces


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor spans."""
    if tensor.numel() == 0:
        return 0, 0
    first = tensor.storage_offset()
    last = first + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride()))
    return int(first * tensor.element_size()), int((last + 1) * tensor.element_size())


class TensorFile:
    """What the member holds, and the table that describes the tensors."""

    def __init__(self, named: list[tuple[str, torch.Tensor]], pieces: list[_Piece]) -> None:
        self._stored: dict[tuple[int, bytes], tuple[str, _Piece]] = {}
        index: dict[int, int] = {}
        self._piece_names: list[str] = []
        taken: set[str] = set()
        for number, piece in enumerate(pieces):
            digest = piece.end - piece.start, hashlib.sha256(piece.data()).digest()
            if digest not in self._stored:
                self._stored[digest] = _free(piece.name, taken), piece
            self._piece_names.append(self._stored[digest][0])
            index.update((id(tensor), number) for tensor in piece.tensors)
        self.table = {
            "pieces": self._piece_names,
            "tensors": [_described(tensor, index[id(tensor)], pieces) for _, tensor in named],
        }
        self._order = sorted(self._stored.values(), key=lambda item: (-_width(item[1]), item[0]))

    def parts(self) -> Iterator[memoryview]:
        """The member's bytes."""
        place, header = 0, {}
        for name, piece in self._order:
            sole, count = piece.sole, piece.end - piece.start
            kind = _SAFE_NAMES[dtype_name(sole.dtype)] if sole is not None else "U8"
            shape = list(sole.shape) if sole is not None else [count]
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + count]}
            place += count
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNED)
        yield memoryview(len(text).to_bytes(8, "little") + text)
        for _, piece in self._order:
            yield piece.data()


def _width(piece: _Piece) -> int:
    """The largest element in a piece, by which it must be aligned."""
    return max(tensor.element_size() for tensor in piece.tensors)


def _free(name: str, taken: set[str]) -> str:
    unique, count = name, 0
    while unique in taken or unique == "__metadata__":
        unique, count = f"{name}#{count + 1}", count + 1
    taken.add(unique)
    return unique


def _described(tensor: torch.Tensor, number: int, pieces: list[_Piece]) -> dict[str, Any]:
    offset = tensor.storage_offset() - pieces[number].start // tensor.element_size() if tensor.numel() else 0
    return {
        "piece": number,
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "offset": offset,
        "device": str(tensor.device),
        "parameter": isinstance(tensor, nn.Parameter),
        "requires_grad": tensor.requires_grad,
    }


# --- reading ----------------------------------------------------------------------------------------------------------


def read_tensors(data: memoryview, table: Any, place: Place) -> list[torch.Tensor]:
    """The tensors of a table, in the memory that the member was read into.

    Raises:
        Malformed: the member or the table holds something that cannot be.
    """
    stored = _stored_pieces(data)
    table = fields(table, "pieces", "tensors")
    names = of_type(table["pieces"], list, "the pieces")
    used: set[str] = set()
    pieces = []
    for name in names:
        need(type(name) is str and name in stored, f"there is no tensor called {brief(name)}")
        piece = (
            torch.frombuffer(stored[name], dtype=torch.uint8)
            if len(stored[name])
            else torch.empty(0, dtype=torch.uint8)
        )
        pieces.append(piece.clone() if name in used else piece)
        used.add(name)
    need(used == set(stored), f"it holds tensors that nothing uses: {sorted(set(stored) - used)}")
    moved: dict[tuple[int, str], torch.Tensor] = {}
    made = []
    for entry in of_type(table["tensors"], list, "the tensors"):
        number = size(field(entry, "piece", int), "a piece")
        need(number < len(pieces), f"there is no piece {number}")
        device = place(field(entry, "device", str))
        memory = moved.setdefault((number, str(device)), pieces[number].to(device))
        made.append(_view(memory, entry))
    return made


def _view(memory: torch.Tensor, entry: Any) -> torch.Tensor:
    names = "piece", "dtype", "shape", "strides", "offset", "device", "parameter", "requires_grad"
    entry = fields(entry, *names)
    dtype = torch_constant("dtype", entry["dtype"])
    shape, strides = sizes(entry["shape"], "a shape"), sizes(entry["strides"], "strides")
    offset, width = size(entry["offset"], "an offset"), dtype.itemsize
    need(len(shape) == len(strides), "a shape and its strides differ in length")
    empty = 0 in shape
    last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides))
    need(empty or (last + 1) * width <= memory.numel(), "a tensor reaches beyond its memory")
    need(empty or math.prod(shape) < 2**63, "a tensor has too many elements")
    grad = of_type(entry["requires_grad"], bool, "requires_grad")
    need(not grad or dtype.is_floating_point or dtype.is_complex, "integers have no gradient")
    if empty:
        tensor = torch.empty_strided(shape, strides, dtype=dtype, device=memory.device)
    else:
        need(memory.data_ptr() % width == 0, "a tensor is not aligned")
        whole = memory[: memory.numel() // width * width].view(dtype)
        tensor = whole.as_strided(shape, strides, offset)
    if of_type(entry["parameter"], bool, "parameter"):
        return nn.Parameter(tensor, requires_grad=grad)
    return tensor.requires_grad_(grad)


def _stored_pieces(data: memoryview) -> dict[str, memoryview]:
    """The member's tensors as bytes, once its header is a safetensors header that leaves no byte unaccounted for."""
    need(len(data) >= 8, "it is too short for safetensors")
    length = int.from_bytes(data[:8], "little")
    need(length <= min(len(data) - 8, _MAX_HEADER), f"its header would have {length} bytes")
    header = of_type(parse(bytes(data[8 : 8 + length])), dict, "the header")
    found: dict[str, memoryview] = {}
    place, data = 0, data[8 + length :]
    for name, entry in header.items():
        entry = fields(entry, "dtype", "shape", "data_offsets")
        offsets = sizes(entry["data_offsets"], "data_offsets")
        width = _WIDTHS.get(of_type(entry["dtype"], str, "a dtype"), 0)
        count = width * math.prod(sizes(entry["shape"], "a shape"))
        need(width and offsets == (place, place + count), f"the tensor {brief(name)} is not where it should be")
        need(offsets[1] <= len(data), f"the tensor {brief(name)} is cut off")
        found[name] = data[place : offsets[1]]
        place = offsets[1]
    need(place == len(data), "there is more in it than its tensors")
    return found
