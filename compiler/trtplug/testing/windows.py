"""How drawn calls of windows over images are arranged so that eager takes them: kernels that fit, and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trtplug.testing.arrangements import Arrange, shaped
from trtplug_registry import FLOATS, Call, Choose, Domain, ListOf, Spec, Static, Tensor


def windows(axes: int, others: Sequence[str] = ()) -> Arrange:
    """Kernel, stride, padding, dilation that fit into the image; the other tensors are of the windows' shape."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        kernel, stride = ([choose.integer(1, most) for _ in range(axes)] for most in (3, 3))
        dilated = "dilation" in call
        dilation = [choose.integer(1, 2) if dilated else 1 for _ in range(axes)]
        padding = [choose.integer(0, k // 2) for k in kernel]
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        sizes = [max(1, r - 2 * p) + choose.integer(0, 4) for r, p in zip(reach, padding, strict=True)]
        lead = (*call["self"].shape[: -axes - 1], choose.integer(1, 3))
        call["self"] = shaped(call["self"], *lead, *sizes)
        call |= {"kernel_size": kernel, "stride": stride, "padding": padding}
        call |= {"dilation": dilation} if dilated else {}
        count = [
            (size + 2 * p - r + (s - 1 if call.get("ceil_mode") else 0)) // s + 1
            for size, p, r, s in zip(sizes, padding, reach, stride, strict=True)
        ]
        if call.get("ceil_mode"):
            count = [n - ((n - 1) * s >= size + p) for n, s, size, p in zip(count, stride, sizes, padding, strict=True)]
        for name in others:
            call[name] = shaped(call[name], *lead, *count)
        if "indices" in call:
            call["indices"] = call["indices"]._replace(values=(0, math.prod(sizes) - 1))

    return arrange


def of_windows(axes: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether gradients have the windows' shape, which eager takes on trust, and may end the process."""

    def holds(call: Mapping[str, Any]) -> bool:
        of = (call[name] for name in ("kernel_size", "stride", "padding"))
        dilation = call.get("dilation") or [1] * axes
        shape = list(call["self"].shape)
        for axis, (k, s, p, d) in enumerate(zip(*of, dilation, strict=True), len(shape) - axes):
            reach = shape[axis] + 2 * p - d * (k - 1) - 1
            count = (-(-reach // s) if call.get("ceil_mode") else reach // s) + 1
            shape[axis] = count - bool(call.get("ceil_mode") and (count - 1) * s >= shape[axis] + p)
        return all(list(call[name].shape) == shape for name in ("grad_output", "indices") if name in call)

    return holds


def convolved(call: dict[str, Any], choose: Choose) -> None:
    axes, groups, transposed = call["weight"].rank - 2, choose.integer(1, 2), call["transposed"]
    kernel, stride, dilation = ([choose.integer(1, most) for _ in range(axes)] for most in (3, 3, 2))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [choose.integer(0, r // 2) for r in reach]
    sizes = [max(1, r + 1 - 2 * p) + choose.integer(0, 3) for r, p in zip(reach, padding, strict=True)]
    inner, outer, batch = choose.integer(1, 2), choose.integer(1, 2), choose.integer(1, 2)
    if transposed:
        after = [(n - 1) * s - 2 * p + r + 1 for n, s, p, r in zip(sizes, stride, padding, reach, strict=True)]
        after = [max(1, size) for size in after]
    else:
        after = [(n + 2 * p - r - 1) // s + 1 for n, s, p, r in zip(sizes, stride, padding, reach, strict=True)]
    maps = (groups * inner, outer) if transposed else (groups * outer, inner)
    call["input"] = shaped(call["input"], batch, groups * inner, *sizes)
    call["weight"] = shaped(call["weight"], *maps, *kernel)
    call["grad_output"] = shaped(call["grad_output"], batch, groups * outer, *after)
    for name in ("input", "weight", "grad_output"):
        call[name] = call[name]._replace(values=(-1e3, 1e3))
    call |= {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    call |= {"bias_sizes": [groups * outer], "output_padding": [0] * axes}


def of_convolution(call: Mapping[str, Any]) -> bool:
    """Whether the gradient has the result's shape, which eager takes on trust, and may end the process."""
    image, weight, gradient = (call[name].shape for name in ("input", "weight", "grad_output"))
    groups, transposed = call["groups"], call["transposed"]
    maps = weight[1] * groups if transposed else weight[0]
    inner = weight[0] if transposed else weight[1] * groups
    sizes = []
    for size, k, s, p, d in zip(image[2:], weight[2:], call["stride"], call["padding"], call["dilation"], strict=True):
        reach = d * (k - 1)
        sizes.append((size - 1) * s - 2 * p + reach + 1 if transposed else (size + 2 * p - reach - 1) // s + 1)
    return tuple(gradient) == (image[0], maps, *sizes) and image[1] == inner


def folded(call: dict[str, Any], choose: Choose) -> None:
    kernel, stride, dilation = ([choose.integer(1, most) for _ in range(2)] for most in (3, 2, 2))
    padding = [choose.integer(0, 1) for _ in range(2)]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = [max(1, r - 2 * p) + choose.integer(0, 3) for r, p in zip(reach, padding, strict=True)]
    blocks = [(n + 2 * p - r) // s + 1 for n, p, r, s in zip(sizes, padding, reach, stride, strict=True)]
    lead = call["self"].shape[:-2]
    call["self"] = shaped(call["self"], *lead, choose.integer(1, 2) * math.prod(kernel), math.prod(blocks))
    call |= {"output_size": sizes, "kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride}


def same_images(call: Call) -> bool:
    """As many gradients as images: of others eager writes past the end."""
    return bool(call["grad_output"].shape[:-2] == call["self"].shape[:-2])


def pooled(axes: int) -> Domain:
    size = ListOf(Static(1, 4), shortest=axes, longest=axes)
    return Domain(self=Tensor(FLOATS, rank=(axes + 1, axes + 2), zero_size=False), output_size=size)


def per_axis(axes: int) -> dict[str, Spec]:
    return {name: ListOf(Static(0, 3), shortest=axes, longest=axes) for name in ("kernel_size", "stride", "padding")}


def unequal_windows(call: dict[str, Any], choose: Choose) -> None:
    lead = call["self"].shape[:-2]
    sizes = [choose.integer(1, 5) for _ in range(2)]
    call["self"] = shaped(call["self"], *lead, *sizes)
    call["grad_output"] = shaped(call["grad_output"], *lead, *(choose.integer(1, size + 1) for size in sizes))


def unpooled(axes: int) -> Arrange:
    """One place in each plane: of equals eager leaves open which stays."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        lead = call["self"].shape[:-axes]
        for name in ("self", "indices"):
            call[name] = shaped(call[name], *lead, *[1] * axes)
        call["indices"] = call["indices"]._replace(values=(0, math.prod(call["output_size"]) - 1))

    return arrange
