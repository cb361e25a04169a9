"""The registry: asked about a node, it always answers, and says why not."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.fx import Node

from trtplug_registry.bodies import body_of, describe_body
from trtplug_registry.claims import Claims
from trtplug_registry.conversion import Converter, check_signature, qualified_name, resolve
from trtplug_registry.errors import DeclarationError, unknown_name
from trtplug_registry.facts import Opaque, describe_node, describe_value
from trtplug_registry.fingerprint import fingerprint
from trtplug_registry.memory import Memory, call_key
from trtplug_registry.natures import has_data_dependent_shape, nature
from trtplug_registry.passes import LoweringPass
from trtplug_registry.pipeline import Ruling, arrange_passes
from trtplug_registry.plugins import Plugin
from trtplug_registry.refusals import Capabilities, Refusals
from trtplug_registry.selection import Selection
from trtplug_registry.support import Reason, ReasonCode, Support, Supported, Unsupported, refuse

_OPS = (OpOverload, HigherOrderOperator)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A converter that claims an op, and why it does not take this node (None where it does)."""

    converter: Converter
    reason: Reason | None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Everything the registry knows about a node or an op."""

    op: str
    candidates: tuple[Candidate, ...]
    support: Support | None
    decomposes: bool


class Registry:
    """Every converter, pass, decomposition and executor of one compilation. Immutable once assembled.

    Args:
        plugins: what was found, in any order.
        prefer: names of plugins whose converters come first, in this order.
        exclude: ops and module paths that stay in Torch, named as `Selection` has it.
        capabilities: the TensorRT at hand; None means that every name that a converter `needs` is there.
        disable_passes: ids of lowering passes that do not run.
        enable_passes: ids of those that run although a plugin disables them.
        pass_order: ``"a:x < b:y"``: the pass ``a:x`` runs before ``b:y``, whatever anybody else says.
        blocked: names of plugins that exist and are not among `plugins`; to name one of their passes is moot.

    Raises:
        UnknownNameError: `prefer` names no plugin.
        PassOrderError: the passes cannot be ordered.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        *,
        prefer: Sequence[str] = (),
        exclude: Sequence[str] = (),
        capabilities: Capabilities | None = None,
        disable_passes: Sequence[str] = (),
        enable_passes: Sequence[str] = (),
        pass_order: Sequence[str] = (),
        blocked: Iterable[str] = (),
    ) -> None:
        self.plugins = tuple(sorted(plugins, key=lambda plugin: plugin.name))
        names = {plugin.name for plugin in self.plugins}
        for name in prefer:
            if name not in names:
                raise unknown_name("plugin", name, names)
        self.prefer = tuple(prefer)
        self.exclude = tuple(exclude)
        self.capabilities = capabilities
        self._choices: Mapping[str, Any] = {
            "prefer": self.prefer,
            "exclude": self.exclude,
            "capabilities": capabilities,
            "disable_passes": tuple(disable_passes),
            "enable_passes": tuple(enable_passes),
            "pass_order": tuple(pass_order),
            "blocked": tuple(blocked),
        }
        self.converters = tuple(sorted((c for p in self.plugins for c in p.converters), key=self._rank))
        pipeline = arrange_passes(
            (item for plugin in self.plugins for item in plugin.passes),
            choices=(item for plugin in self.plugins for item in plugin.pass_choices),
            disable=disable_passes,
            enable=enable_passes,
            order=pass_order,
            absent={*self._choices["blocked"], *(plugin.name for plugin in self.plugins if plugin.error)},
        )
        self.passes: tuple[LoweringPass, ...] = pipeline.passes
        self.pass_rulings: tuple[Ruling, ...] = pipeline.rulings
        self.decompositions = self._gather_decompositions()
        self.executors = tuple(
            sorted((e for p in self.plugins for e in p.executors), key=lambda e: (-e.priority, e.plugin, e.name))
        )
        self._exclusions = Selection(exclude)
        self._refusals = Refusals(capabilities)
        self._claims, self._unloaded = self._index()
        self._memory = Memory()

    def having(self, **choices: Any) -> Registry:
        """A registry of the same plugins with some of its arguments changed, by name."""
        return Registry(self.plugins, **{**self._choices, **choices})

    # --- asking ---------------------------------------------------------------------------------------------------

    def lookup(self, node: Node) -> Support:
        """Whether a node can be in TensorRT, and by whom, or why not.

        Total and pure: it reads FX metadata only, never raises, never logs, leaves graph and guards as they were.
        Memoized per node, for as long as its target, arguments and their metadata stay the same objects.
        """
        verdicts = self._memory.of(node).verdicts
        known = verdicts.get(node)
        if known is not None and known[0] is node.target and known[1] is node.args and known[2] is node.kwargs:
            for source, value in known[3]:
                if source.meta.get("val") is not value:
                    break
            else:
                return known[4]  # type: ignore[no-any-return]
        support = self._verdict(node)
        claims = self._claims.get(node.target)  # type: ignore[call-overload]  # any target may be asked about
        if claims is None or not claims.volatile:
            values = tuple((source, source.meta.get("val")) for source in node.all_input_nodes)
            verdicts[node] = (node.target, node.args, node.kwargs, values, support)
        return support

    def explain(self, asked: Node | OpOverload | HigherOrderOperator | str) -> Explanation:
        """All candidates for a node or an op, in order; for a node also why each does not take it.

        Raises:
            UnknownNameError: a string that names no op.
        """
        if isinstance(asked, Node):
            support = self.lookup(asked)
            op = asked.target
            reasons = self._reasons(asked) if isinstance(op, _OPS) else {}
        else:
            found = resolve(asked) if isinstance(asked, str) else asked
            if isinstance(found, OpOverloadPacket):
                found = getattr(found, found.overloads()[0])
            if found is None:
                raise unknown_name("op", str(asked), {qualified_name(op) for op in self._claims})
            support, op, reasons = None, found, {}
        candidates = tuple(Candidate(c, reasons.get(c)) for c in self.candidates(op))
        name = qualified_name(op) if isinstance(op, _OPS) else str(op)
        return Explanation(name, candidates, support, op in self.decompositions)

    def candidates(self, op: Any) -> tuple[Converter, ...]:
        """The converters that claim an overload, in the order in which they are asked."""
        claims = self._find_claims(op)
        return claims.converters if claims else ()

    def unavailable(self, op: OpOverload, converter: Converter) -> Reason | None:
        """Why a converter that claims an op takes no call of it whatever its arguments, or None."""
        if self._exclusions.has_op(op):
            return Reason(ReasonCode.EXCLUDED_BY_USER, seen=f"torch_ops keeps {qualified_name(op)} in Torch")
        claims = self._find_claims(op)
        return None if claims is None else self._refusals.of_op(claims, converter)

    @property
    def targets(self) -> tuple[OpOverload, ...]:
        """The overloads that some converter claims, by name."""
        return tuple(sorted((op for op in self._claims if isinstance(op, OpOverload)), key=qualified_name))

    @functools.cached_property
    def conflicts(self) -> Mapping[OpOverload | HigherOrderOperator, tuple[tuple[Converter, Converter], ...]]:
        """Pairs of third-party converters that refuse each other, by op."""
        found = {op: tuple(claims.conflicts.items()) for op, claims in self._claims.items()}
        return {op: pairs for op, pairs in found.items() if pairs}

    @property
    def faults(self) -> Mapping[Converter, str]:
        """What was found wrong with converters while assembling and asking, in words. It is a refusal, never raised."""
        return types.MappingProxyType(dict(self._refusals.faults))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 over everything in here that decides a compilation's result."""
        return fingerprint(
            [(plugin.name, plugin.distribution, plugin.version) for plugin in self.plugins],
            [
                (c.id, c.function, str(c.domain), c.domain.relations, c.dynamic_shapes, c.priority, c.needs)
                for c in self.converters
            ],
            [(item.id, item.phase, item.function, sorted(map(str, item.ops))) for item in self.passes],
            {qualified_name(op): function for op, function in self.decompositions.items()},
            self.prefer,
            self.exclude,
        )

    def __iter__(self) -> Iterator[Converter]:
        return iter(self.converters)

    def __len__(self) -> int:
        return len(self.converters)

    # --- assembling -----------------------------------------------------------------------------------------------

    def _rank(self, converter: Converter) -> tuple[Any, ...]:
        """The total order: the user's preference, then priority, then third party before built-in, then name."""
        preferred = self.prefer.index(converter.plugin) if converter.plugin in self.prefer else len(self.prefer)
        return (
            preferred,
            -converter.priority,
            converter.built_in,
            converter.plugin,
            converter.name,
            converter.target_name,
            str(converter.domain),
        )

    def _index(self) -> tuple[dict[OpOverload | HigherOrderOperator, Claims], dict[str, list[Converter]]]:
        by_op: dict[OpOverload | HigherOrderOperator, list[Converter]] = {}
        unloaded: dict[str, list[Converter]] = {}
        for converter in self.converters:
            try:
                overloads = converter.overloads()
            except DeclarationError as error:  # a target by name, whose op was loaded after the plugin was asked
                self._refusals.faults[converter] = str(error)
                continue
            ops = overloads or ((converter.operator,) if converter.operator is not None else ())
            for op in ops:
                by_op.setdefault(op, []).append(converter)
            if not ops:
                unloaded.setdefault(converter.target_name.replace("::", "."), []).append(converter)
        return {op: Claims(op, converters, self.prefer) for op, converters in by_op.items()}, unloaded

    def _gather_decompositions(self) -> Mapping[OpOverload, Callable[..., Any]]:
        gathered: dict[OpOverload, Callable[..., Any]] = {}
        for plugin in sorted(self.plugins, key=lambda p: (not p.built_in, p.name)):
            gathered |= plugin.decompositions
        return gathered

    def _find_claims(self, op: Any) -> Claims | None:
        """The claims on an op; a converter whose target is a name is looked up when its op is first seen."""
        claims = self._claims.get(op)
        if claims is None and self._unloaded and isinstance(op, OpOverload):
            named = self._unloaded.get(qualified_name(op).replace("::", "."))
            if named:
                fitting = [converter for converter in named if self._fits(converter, op)]
                claims = self._claims[op] = Claims(op, fitting, self.prefer)
        return claims

    def _fits(self, converter: Converter, op: OpOverload) -> bool:
        try:
            check_signature(converter, op)
        except DeclarationError as error:
            self._refusals.faults[converter] = str(error)
            return False
        return True

    # --- deciding -------------------------------------------------------------------------------------------------

    def _verdict(self, node: Node) -> Support:
        op = node.target
        if node.op != "call_function" or not isinstance(op, _OPS):
            return refuse(ReasonCode.NO_CONVERTER, seen=f"{_name(node)} is not an ATen or custom op")
        excluded = self._exclusions.match(node) if self._exclusions else None
        if excluded is not None:
            return refuse(ReasonCode.EXCLUDED_BY_USER, seen=f"torch_ops keeps {excluded} in Torch")
        claims = self._find_claims(op)
        if claims is None or not claims.converters:
            faults = self._refusals.faults
            unfit = "; ".join(faults[c] for c in faults if c.target_name == qualified_name(op))
            text = unfit or f"no plugin has a converter for {qualified_name(op)}"
            code = ReasonCode.DATA_DEPENDENT_SHAPE if has_data_dependent_shape(op) else ReasonCode.NO_CONVERTER
            return refuse(code, seen=text, because="" if unfit else nature(op))
        call = self._call(claims, node)
        if isinstance(call, Reason):
            return Unsupported((call,))
        if not claims.alike:
            return self._ask(claims, node, call)
        alike, key = self._memory.of(node).alike, call_key(claims, map(call.__getitem__, claims.names))
        try:
            known = alike.get(key)
        except TypeError:  # an argument that cannot be hashed
            return self._ask(claims, node, call)
        if known is None:
            known = alike[key] = self._ask(claims, node, call)
        return known

    def _ask(self, claims: Claims, node: Node, call: dict[str, Any]) -> Support:
        """The first converter that takes a call, or everyone's reason."""
        reasons = []
        for place, converter in enumerate(claims.converters):
            reason = self._refusals.of(claims, place, node, call)
            if reason is None:
                return Supported(converter)
            reasons.append(reason)
        return Unsupported(tuple(reasons))

    def _reasons(self, node: Node) -> dict[Converter, Reason | None]:
        claims = self._find_claims(node.target)
        if claims is None:
            return {}
        call = self._call(claims, node)
        if isinstance(call, Reason):
            return dict.fromkeys(claims.converters, call)
        return {c: self._refusals.of(claims, place, node, call) for place, c in enumerate(claims.converters)}

    def _call(self, claims: Claims, node: Node) -> dict[str, Any] | Reason:
        try:
            call = claims.bind(node, self._describe)
        except Exception as error:  # metadata may be anything
            return Reason(ReasonCode.NO_METADATA, seen=f"its arguments cannot be described ({error})")
        for name, value in call.items():
            if isinstance(value, Opaque):
                return Reason(ReasonCode.NO_METADATA, name, "a value in node.meta['val']", value.why)
        return call

    def _describe(self, value: Any) -> Any:
        if isinstance(value, Node):
            described = self._memory.of(value).facts
            known = described.get(value)
            current = value.meta.get("val")
            if known is not None and known[0] is current and current is not None:
                return known[1]
            body = body_of(value) if current is None else None
            if body is not None:  # not kept: bodies are lowered, too
                return describe_body(body, self.lookup)
            facts = describe_node(value)
            described[value] = (current, facts)
            return facts
        if isinstance(value, list | tuple):
            return [self._describe(item) for item in value]
        return describe_value(value)


def _name(node: Node) -> str:
    return node.op if node.op != "call_function" else getattr(node.target, "__name__", str(node.target))
