"""Models on a GPU against what a user would run instead: eager, torch.compile, Torch-TensorRT.

    python benchmarks/speed.py [--rows ResNet-50,UNet] [--contestants eager,ours] [--out FOLDER]

One process for each model, in which everybody runs it on the same inputs; while one of them is timed the others wait.
Times are medians of calls that are each waited for, in rounds that alternate between the contestants. float16, random
weights. Results are written to FOLDER/speed.jsonl as they come. Who is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import copy
import importlib.util
import json
import math
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

sys.path.insert(0, str(Path(__file__).parent))

ROUNDS, CALLS = 5, 20
STEPS = 50

# --- models -----------------------------------------------------------------------------------------------------------


class UNet(torch.nn.Module):
    """The UNet of Stable Diffusion 1.5: its sizes are the defaults of diffusers."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)

    def forward(self, sample: torch.Tensor, step: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        (result,) = self.unet(sample, step, words, return_dict=False)
        return result  # type: ignore[no-any-return]


def resnet50(batch: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from gpu_jobs import MODELS

    model, _ = MODELS["ResNet-50"]()
    return model, (torch.randn(batch, 3, 224, 224),)


def vit(batch: int) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from torchvision.models import vit_b_16

    model = vit_b_16(weights=None)
    torch.nn.init.normal_(model.heads.head.weight, std=0.02)  # zeros otherwise
    return model, (torch.randn(batch, 3, 224, 224),)


def bert() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    from gpu_jobs import MODELS

    return MODELS["BERT-base"]()


class Prefill(torch.nn.Module):
    """GPT-2's logits for a prompt."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config(use_cache=False))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids).logits  # type: ignore[no-any-return]


def gpt2() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return Prefill(), (torch.randint(0, 50000, (1, 128)),)


def unet() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    return UNet(), (torch.randn(2, 4, 64, 64), torch.tensor(500), torch.randn(2, 77, 768))


ROWS: dict[str, Callable[[], tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]] = {
    "ResNet-50 (1)": lambda: resnet50(1),
    "ResNet-50 (32)": lambda: resnet50(32),
    "ViT-B/16 (1)": lambda: vit(1),
    "ViT-B/16 (32)": lambda: vit(32),
    "BERT-base (1 × 128)": bert,
    "GPT-2 prefill (1 × 128)": gpt2,
    "SD-1.5 UNet (2 × 4 × 64 × 64)": unet,
}

# --- contestants ------------------------------------------------------------------------------------------------------

Call = Callable[[], Any]


class Row:
    """A model in float16 on the GPU, its inputs, and its exact output."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        made, args = ROWS[name]()
        self.wide = made.eval().cuda()
        self.wide_args = tuple(a.cuda() for a in args)
        with torch.no_grad():
            self.exact = first(self.wide(*self.wide_args)).double()
        self.model = copy.deepcopy(self.wide).half()
        self.args = tuple(a.half() if a.is_floating_point() else a for a in self.wide_args)
        self.cache = tempfile.mkdtemp()
        self.seconds: dict[str, float] = {}
        self.ours: dict[str, Any] = {}


def first(results: Any) -> torch.Tensor:
    found = results if isinstance(results, torch.Tensor) else next(iter(results))
    return found


def eager(row: Row) -> Call:
    return lambda: row.model(*row.args)


def inductor(row: Row, mode: str) -> Call:
    torch._dynamo.reset()
    fast = torch.compile(row.model, mode=mode)
    for _ in range(3):
        fast(*row.args)
    return lambda: fast(*row.args)


def ours(row: Row, cuda_graphs: bool, wide: bool = False, **settings: Any) -> Call:
    """The model in float16; or in float32, of which trtplug makes float16."""
    import trtplug

    model, args = (row.wide, row.wide_args) if wide else (row.model, row.args)
    program = trtplug.trace(model, args)
    start = time.perf_counter()
    compiled = trtplug.compile(program, executor="tensorrt", cuda_graphs=cuda_graphs, cache_dir=row.cache, **settings)
    compiled(*args)
    torch.cuda.synchronize()
    label = f"ours{', precision' if wide else ''}{', CUDA graphs' if cuda_graphs else ''}"
    row.seconds[label] = time.perf_counter() - start
    row.ours[label] = compiled, args
    for _ in range(3):
        compiled(*args)
    return lambda: compiled(*args)


def peer(row: Row, cuda_graphs: bool) -> Call:
    import torch_tensorrt

    if "peer" not in row.ours:
        program = torch.export.export(row.model, row.args)
        start = time.perf_counter()
        compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=list(row.args), min_block_size=1)
        compiled(*row.args)
        torch.cuda.synchronize()
        row.seconds["peer"] = time.perf_counter() - start
        row.ours["peer"] = compiled, row.args
    compiled, args = row.ours["peer"]
    if not cuda_graphs:
        return lambda: compiled(*args)
    context = torch_tensorrt.runtime.enable_cudagraphs(compiled)
    wrapped = context.__enter__()
    for _ in range(3):
        wrapped(*args)
    context.__exit__(None, None, None)

    def call() -> Any:  # the mode is the process's
        with torch_tensorrt.runtime.enable_cudagraphs(compiled) as graphed:
            return graphed(*args)

    call.enter = lambda: torch_tensorrt.runtime.enable_cudagraphs(compiled)  # type: ignore[attr-defined]
    call.args = args  # type: ignore[attr-defined]
    return call


CONTESTANTS: dict[str, Callable[[Row], Call]] = {
    "eager": eager,
    "inductor": lambda row: inductor(row, "default"),
    "inductor, CUDA graphs": lambda row: inductor(row, "reduce-overhead"),
    "peer": lambda row: peer(row, False),
    "peer, CUDA graphs": lambda row: peer(row, True),
    "ours": lambda row: ours(row, False),
    "ours, CUDA graphs": lambda row: ours(row, True),
    "ours, precision": lambda row: ours(row, False, True, precision="float16"),
    "ours, precision, CUDA graphs": lambda row: ours(row, True, True, precision="float16"),
}

# --- one model's process ----------------------------------------------------------------------------------------------


def serve(name: str, contestants: list[str]) -> None:
    """Makes everything ready, waits for its turn, times, and writes one line for each result."""
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no result

    def say(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")

    row, calls = Row(name), {}
    with torch.no_grad():
        for who in contestants:
            start = time.perf_counter()
            try:
                calls[who] = CONTESTANTS[who](row)
                error = float((first(calls[who]()).double() - row.exact).abs().max() / row.exact.abs().max())
                say(who=who, error=error, ready_s=time.perf_counter() - start)
            except Exception as problem:
                calls.pop(who, None)
                traceback.print_exc()
                say(who=who, failed=" ".join(f"{type(problem).__name__}: {problem}".split())[:300])
        say(ready=True)
        sys.stdin.readline()
        for who, ms in timed(calls).items():
            say(who=who, ms=ms)
        if name.startswith("SD"):
            for who, call in calls.items():
                say(who=who, steps_s=steps(call))
        for who, (compiled, args) in row.ours.items():
            if who.startswith("ours") and "graphs" not in who:
                say(who=who, profile=profile(compiled, args))
        for who, seconds in row.seconds.items():
            say(who=who, compile_s=seconds)
    say(done=True)
    out.flush()
    os._exit(0)  # what a library does at the end of its life is not measured


def timed(calls: dict[str, Call]) -> dict[str, float]:
    """Medians, in milliseconds."""
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(ROUNDS):
        for who, call in calls.items():
            with entered(call) as run:
                for number in range(CALLS + 3):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    run()
                    torch.cuda.synchronize()
                    if number >= 3:
                        times[who].append(1e3 * (time.perf_counter() - start))
    return {who: statistics.median(found) for who, found in times.items()}


@contextlib.contextmanager
def entered(call: Any) -> Iterator[Call]:
    """The peer's CUDA graphs are a mode that is entered and left."""
    if not hasattr(call, "enter"):
        yield call
        return
    with call.enter() as graphed:
        yield lambda: graphed(*call.args)


def steps(call: Call) -> float:
    """Seconds for the steps of one picture, of which only the last is waited for; median of three."""
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        with entered(call) as run:
            start = time.perf_counter()
            for _ in range(STEPS):
                run()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def profile(compiled: Any, args: Any) -> Any:
    try:
        return [(layer.layer, layer.ms, layer.nodes) for layer in compiled.profile(*args).layers]
    except Exception as problem:
        return str(problem)[:300]


def compile_alone(name: str, who: str) -> None:
    """Seconds from the exported program to the end of the first call, with nothing beside it.

    TensorRT is loaded before, by either's import. So are the peer's own modules; ours only for "ours, loaded".
    """
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    row = Row(name)
    with torch.no_grad():
        row.model(*row.args)
        before = time.perf_counter()
        if who.startswith("ours"):
            import trtplug
            from trtplug._tensorrt import library

            library()
            loaded = time.perf_counter() - before
            ours_program = trtplug.trace(row.model, row.args)
            if who == "ours, loaded":
                _ = trtplug.compile, trtplug.registry()  # the modules of the pipeline, and of the plugins
            start = time.perf_counter()
            compiled: Any = trtplug.compile(ours_program, executor="tensorrt")
        else:
            import torch_tensorrt

            loaded = time.perf_counter() - before
            program = torch.export.export(row.model, row.args)
            start = time.perf_counter()
            compiled = torch_tensorrt.dynamo.compile(program, arg_inputs=list(row.args), min_block_size=1)
        compiled(*row.args)
        torch.cuda.synchronize()
    alone = time.perf_counter() - start
    stages = dict(compiled.report.stages) if who.startswith("ours") else {}
    out.write(json.dumps({"who": who, "alone_s": alone, "import_s": loaded, "stages": stages}) + "\n")
    out.flush()
    os._exit(0)


# --- all of them ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="parts of the models' names, comma-separated (default: all)")
    parser.add_argument("--contestants", default=";".join(CONTESTANTS), help="names, separated by ;")
    parser.add_argument("--seconds", type=float, default=560, help="in all (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder (default: %(default)s)")
    parser.add_argument("--compile-times", action="store_true", help="only what compiling takes, ours and the peer's")
    parser.add_argument("--repeats", type=int, default=4, help="of each, with --compile-times (default: %(default)s)")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    contestants = [who for who in chosen.contestants.split(";") if who]
    if chosen.alone:
        compile_alone(chosen.alone, contestants[0])
    unknown = [who for who in contestants if who not in CONTESTANTS]
    if unknown:
        parser.error(f"no contestant {unknown[0]!r}: choose among {'; '.join(CONTESTANTS)}")
    if chosen.serve:
        serve(chosen.serve, contestants)
        return
    parts = [part for part in chosen.rows.split(",") if part]
    rows = [name for name in ROWS if not parts or any(part in name for part in parts)]
    chosen.out.mkdir(parents=True, exist_ok=True)
    with (chosen.out / "speed.jsonl").open("a") as file:
        results = Results(file)
        if chosen.compile_times:
            compile_times(rows, results, chosen.repeats)
            return
        run(rows, contestants, results, chosen.out, time.monotonic() + chosen.seconds)
    results.print(contestants)


class Results:
    """What has come, by model and contestant; each line also goes into a file."""

    def __init__(self, file: Any) -> None:
        self.file, self.found = file, {}  # type: ignore[var-annotated]

    def add(self, name: str, line: dict[str, Any]) -> None:
        self.file.write(json.dumps({"row": name, **line}) + "\n")
        self.file.flush()
        if "who" in line:
            self.found.setdefault(name, {}).setdefault(line["who"], {}).update(line)

    def print(self, contestants: list[str]) -> None:
        from trtplug._tensorrt import library

        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        print(f"\n{where}, torch {torch.__version__}, TensorRT {library().__version__}")
        print("\n| model | " + " | ".join(contestants) + " |\n" + "|---" * (len(contestants) + 1) + "|")
        self.found = {name: self.found[name] for name in ROWS if name in self.found}
        for name, by in self.found.items():
            cells = [f"{by[w]['ms']:.3f}" if "ms" in by.get(w, {}) else "–" for w in contestants]
            print(f"| {name} | " + " | ".join(cells) + " |")
        for name, by in self.found.items():
            for who, found in by.items():
                words = [
                    f"{key} {found[key]:.3g}" for key in ("error", "steps_s", "compile_s", "ready_s") if key in found
                ]
                print(f"{name}: {who}: {found.get('failed') or ', '.join(words)}")
                if isinstance(found.get("profile"), list):
                    layers = sorted(found["profile"], key=lambda layer: -layer[1])
                    total = sum(layer[1] for layer in layers)
                    print(f"    {len(layers)} layers, {total:.3f} ms; costliest:")
                    for layer, ms, nodes in layers[:4]:
                        print(f"    {ms:.4f} {layer[:100]} {list(nodes)[:4]}")
                elif "profile" in found:
                    print(f"    profile: {found['profile']}")


def run(rows: list[str], contestants: list[str], results: Results, out: Path, deadline: float) -> None:
    """All processes get ready at a time; then they are timed one by one."""
    command = [sys.executable, __file__, "--contestants", ";".join(contestants), "--serve"]
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "2"}
    running = {}
    for name in rows:
        log = (out / f"{name.split(' ')[0].replace('/', '-')}-{rows.index(name)}.log").open("w")
        running[name] = subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    lines: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    for name, process in running.items():
        threading.Thread(target=_read, args=(name, process, lines), daemon=True).start()
    ready: set[str] = set()
    while len(ready) < len(running) and time.monotonic() < deadline - 60:
        with contextlib.suppress(queue.Empty):
            name, found = lines.get(timeout=1)
            results.add(name, found)
            if "ready" in found or "ended" in found:
                ready.add(name)
    print(f"ready: {sorted(ready)}", flush=True)
    for name, process in running.items():
        if name not in ready:
            process.kill()
    for name in [name for name in rows if name in ready]:
        process = running[name]
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                who, found = lines.get(timeout=1)
                results.add(who, found)
                if who == name and ("done" in found or "ended" in found):
                    break
        process.kill()
        process.wait()


def compile_times(rows: list[str], results: Results, repeats: int) -> None:
    """One process at a time, the contestants in turn. Our bytecode is there, as when a package is installed."""
    for package in ("trtplug", "trtplug_registry", "trtplug_converters", "trtplug_lowering_passes"):
        for folder in importlib.util.find_spec(package).submodule_search_locations:  # type: ignore[union-attr]  # ours
            compileall.compile_dir(folder, quiet=2)
    for name in rows:
        times: dict[str, list[float]] = {}
        for who in ("ours", "peer", "ours, loaded") * repeats:
            command = [sys.executable, __file__, "--contestants", who, "--alone", name]
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                line = done.stdout.strip().splitlines()[-1:] or [json.dumps({"failed": done.stderr[-300:]})]
                results.add(name, json.loads(line[0]))
                print(f"{name}: {who}: {line[0]}", flush=True)
                times.setdefault(who, []).append(json.loads(line[0]).get("alone_s", math.nan))
        for who, seconds in times.items():
            ratio = statistics.mean(seconds) / statistics.mean(times["peer"])
            print(f"{name}: {who}: {statistics.mean(seconds):.2f} s on average, {ratio:.2f} of the peer's")


def _read(name: str, process: subprocess.Popen[str], lines: queue.Queue[tuple[str, dict[str, Any]]]) -> None:
    for line in process.stdout or ():
        lines.put((name, json.loads(line)))
    lines.put((name, {"ended": True}))


if __name__ == "__main__":
    main()
