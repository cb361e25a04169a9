"""The report as tables for a terminal."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trtplug.insight.picture import INPUTS, OUTPUTS, Crossing
from trtplug.report import CompilationReport, EngineRecord, NodeRecord

if TYPE_CHECKING:
    from trtplug.profile import Profile

MOST_ROWS = 40
MOST_SUGGESTIONS = 8
MOST_CROSSINGS = 12
MOST_TENSORS = 4
WIDEST_BAR = 8


def render(report: CompilationReport, console: Console, nodes: bool = False, passes: bool = False) -> None:
    """Prints a report: engines, what stays in Torch and why, stage times; also every node, and what lowering did."""
    work = "" if report.flop_share is None else f", {report.flop_share:.1%} of the FLOPs"
    console.print(f"[bold]{escape(report.summary())}[/bold]{work}", highlight=False)
    if report.engines:
        console.print(_engines(report))
        for engine in report.engines:
            flow = f"{', '.join(engine.inputs) or 'nothing'} → {', '.join(engine.outputs)}"
            console.print(f"engine {engine.index}: {escape(flow)}", highlight=False)
            for fact in _facts(engine):
                console.print(f"  {escape(fact)}", highlight=False)
        console.print()
    if report.torch_ops:
        console.print(_torch(report))
    elif report.nodes:
        console.print("Nothing is left to Torch.")
    inner = [crossing for crossing in report.crossings if crossing.source != INPUTS and crossing.target != OUTPUTS]
    if inner:
        console.print(_crossings(inner))
    if report.suggestions:
        console.print(_suggestions(report))
    if nodes:
        console.print(_nodes(report))
    if passes:
        console.print(_passes(report))
        for ruling in report.pass_rulings:
            console.print(escape(str(ruling)), highlight=False)
        console.print(_originals(report))
    if report.stages:
        seconds = "   ".join(f"{stage} {spent:.2f}" for stage, spent in report.stages.items())
        console.print(f"seconds: {seconds}", highlight=False)
    for warning in report.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", highlight=False)


def _engines(report: CompilationReport) -> Table:
    table = Table(title="TensorRT engines", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("engine", justify="right")
    for name in ("nodes", "layers", "bytes", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("dtypes", overflow="fold")
    table.add_column("most frequent ops", overflow="fold")
    by_name = {node.name: node for node in report.nodes}
    for engine in report.engines:
        ops = Counter(by_name[name].op.removeprefix("aten::") for name in engine.nodes)
        dtypes = Counter(by_name[name].dtype for name in engine.nodes)
        table.add_row(
            str(engine.index),
            str(len(engine.nodes)),
            str(engine.layers or "–"),
            f"{engine.bytes:,}" if engine.bytes else "–",
            f"{engine.seconds:.2f}{' (cached)' if engine.cached else ''}" if engine.seconds else "–",
            _counted(dtypes),
            escape(_counted(ops)),
        )
    return table


def _facts(engine: EngineRecord) -> list[str]:
    """The ranges that an engine is built for, and what it is where it is loaded, a line each."""
    found = []
    if engine.profiles:
        ranges = "; or ".join(", ".join(map(str, sizes)) for sizes in engine.profiles)
        many = f"{len(engine.profiles)} optimization profiles" if len(engine.profiles) > 1 else "sizes"
        found.append(f"{many}: {ranges}")
    if engine.loaded is not None:
        at = engine.loaded
        words = [
            f"{len(at.layers):,} layers of TensorRT's" if at.layers else "",
            "" if at.device_memory is None else f"{at.device_memory:,} bytes of scratch memory",
            f"{at.streamable_weights:,} bytes of weights that can be streamed" if at.streamable_weights else "",
            "" if at.aux_streams is None else f"{at.aux_streams} auxiliary streams",
        ]
        found.append(f"loaded: {', '.join(filter(None, words)) or 'TensorRT says nothing of it'}")
    return found


def render_profile(profile: Profile, console: Console, count: int) -> None:
    """Prints the costliest layers of a profile, each with its share of the time, its nodes and their source."""
    console.print(f"[bold]{escape(profile.summary())}[/bold]", highlight=False)
    if profile.inputs:
        console.print(f"called with {escape(', '.join(profile.inputs))}", highlight=False)
    if profile.caution:
        console.print(f"[yellow]{escape(profile.caution)}[/yellow]", highlight=False)
    if not profile.layers:
        console.print("There is no engine: everything runs in Torch.")
        return
    shown = profile.costliest(count)
    table = Table(title="The costliest layers", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("ms", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("engine", justify="right", no_wrap=True)
    for name, ratio in (("nodes", 3), ("source", 2)):
        table.add_column(name, overflow="fold", ratio=ratio)
    most = max(profile.share(layer) for layer in shown)
    for layer in shown:
        share, nodes = profile.share(layer), profile.nodes_of(layer)
        sources = dict.fromkeys(_near(node.source).split(": ")[0] for node in nodes if node.source)
        named = escape(", ".join(map(_with_op, nodes)))
        table.add_row(
            f"{layer.ms:.4f}",
            f"{share:.1%}",
            f"[green]{'█' * max(1, round(WIDEST_BAR * share / most)) if most else ''}[/green]",
            layer.engine.removeprefix("engine_"),
            f"{named or '–'}\n[dim]{escape(layer.layer)}[/dim]",
            escape("\n".join(sources)),
        )
    console.print(table)
    rest = len(profile.layers) - len(shown)
    if rest:
        others = profile.ms - sum(layer.ms for layer in shown)
        console.print(f"… and {rest:,} more layers, {others:.3f} ms", highlight=False)


def _with_op(node: NodeRecord) -> str:
    """A node's name, and its op where that says more."""
    op = node.op.removeprefix("aten::")
    return node.name if node.name.rstrip("_0123456789") == op.partition(".")[0] else f"{node.name} ({op})"


def _torch(report: CompilationReport) -> Table:
    table = Table(title="Left to Torch", title_justify="left", box=box.SIMPLE_HEAD)
    for name, ratio in (("node", 3), ("why", 5), ("source", 3)):
        table.add_column(name, overflow="fold", ratio=ratio)
    for node in report.torch_ops[:MOST_ROWS]:
        table.add_row(
            f"{escape(node.name)}\n[dim]{escape(node.op)} {node.dtype}[/dim]",
            escape("\n".join(map(str, node.reasons))),
            escape(_near(node.source)),
        )
    rest = len(report.torch_ops) - MOST_ROWS
    if rest > 0:
        table.add_row(f"… {rest} more", "", "")
    return table


def _crossings(crossings: list[Crossing]) -> Table:
    """What goes between engines and Torch, the most bytes first."""
    count, total = sum(len(item.tensors) for item in crossings), sum(item.bytes for item in crossings)
    table = Table(
        title=f"Between blocks: {count:,} tensors, {total:,} bytes a call", title_justify="left", box=box.SIMPLE_HEAD
    )
    for name in ("from", "to"):
        table.add_column(name, no_wrap=True)
    table.add_column("bytes", justify="right")
    table.add_column("tensors", overflow="fold")
    for item in sorted(crossings, key=lambda item: -item.bytes)[:MOST_CROSSINGS]:
        rest = len(item.tensors) - MOST_TENSORS
        names = ", ".join(item.tensors[:MOST_TENSORS]) + (f" and {rest} more" if rest > 0 else "")
        table.add_row(item.source, item.target, f"{item.bytes:,}", escape(names))
    if len(crossings) > MOST_CROSSINGS:
        table.add_row(f"… {len(crossings) - MOST_CROSSINGS} more", "", "", "")
    return table


def _nodes(report: CompilationReport) -> Table:
    table = Table(title="Nodes", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("engine", justify="right")
    for name in ("node", "op", "dtype", "why this dtype"):
        table.add_column(name, overflow="fold")
    for node in report.nodes:
        engine = "Torch" if node.engine is None else str(node.engine)
        table.add_row(engine, escape(node.name), escape(node.op), node.dtype, escape(node.precision))
    return table


def _passes(report: CompilationReport) -> Table:
    table = Table(title="Lowering passes", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("pass", overflow="fold")
    for name in ("ms", "nodes before", "after"):
        table.add_column(name, justify="right")
    table.add_column("what it did, and declined to do", overflow="fold")
    for item in report.passes:
        notes = [item["error"]] if item["error"] else []
        notes += [f"{rule} ×{count}" for rule, count in item["applied"].items()]
        notes += [f"not {reason} ×{count}" for reason, count in item["declined"].items()]
        after = str(item["nodes_after"]) if item["changed"] else "="
        milliseconds = f"{1e3 * item['seconds']:.1f}"
        table.add_row(escape(item["id"]), milliseconds, str(item["nodes_before"]), after, escape("\n".join(notes)))
    return table


def _originals(report: CompilationReport) -> Table:
    """What became of the exported calls, those with one fate in one row."""
    table = Table(title="Exported calls", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("calls", justify="right")
    for name in ("op", "became", "by", "now"):
        table.add_column(name, overflow="fold")
    ops = {node.name: node.op.removeprefix("aten::") for node in report.nodes}
    rows: Counter[tuple[str, ...]] = Counter()
    for item in report.originals:
        now = Counter(ops[name] for name in item.nodes if name in ops) if item.became != "kept" else Counter()
        rows[item.op, item.became, item.by, _counted(now)] += 1
    for row, count in rows.most_common(MOST_ROWS):
        table.add_row(str(count), *map(escape, row))
    if len(rows) > MOST_ROWS:
        table.add_row("", f"… {len(rows) - MOST_ROWS} more", "", "", "")
    return table


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common(4))


def _suggestions(report: CompilationReport) -> Table:
    table = Table(title="What would change it (each was tried)", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("change", overflow="fold", ratio=2)
    table.add_column("gain", overflow="fold", ratio=3)
    for item in report.suggestions[:MOST_SUGGESTIONS]:
        table.add_row(escape(item.text), escape(item.gain))
    return table


def _near(source: str) -> str:
    """A source line with its file relative to the current folder, where it is in there."""
    return source.removeprefix(f"{os.getcwd()}{os.sep}")
