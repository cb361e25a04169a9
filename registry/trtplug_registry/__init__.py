"""The contract between trtplug and its plugins. A plugin imports only this package.

Declare converters with `converter` and `converter_table`, their arguments with a `Domain`, graph rewrites with
`lowering_pass` or as a `rule_pass` of patterns; return them from the hooks in `trtplug_registry.hookspecs`. Importing
this imports no TensorRT.
"""

from trtplug_registry.context import ConverterContext, NetworkSize, NetworkTensor, Operand
from trtplug_registry.converter import Converter, Tolerance, converter, converter_table, qualified_name, resolve
from trtplug_registry.domain import Domain, Restriction
from trtplug_registry.errors import (
    DeclarationError,
    PassOrderError,
    PluginError,
    PluginWarning,
    TrtplugError,
    UnknownNameError,
    unknown_name,
)
from trtplug_registry.examples import Example
from trtplug_registry.executor import Engine, Executor
from trtplug_registry.facts import Call, SymbolicSize, TensorFacts, describe_tensor, describe_value
from trtplug_registry.hookspecs import CONTRACT, hookimpl
from trtplug_registry.nature import nature
from trtplug_registry.passes import PHASES, LoweringPass, applied, decline, lowering_pass, take_notes
from trtplug_registry.pipeline import order_passes
from trtplug_registry.plugins import Plugin, PluginManager
from trtplug_registry.registry import Candidate, Capabilities, Explanation, Registry
from trtplug_registry.relations import (
    Choose,
    OutputsUsed,
    Relation,
    broadcastable,
    dims,
    distinct_axes,
    index_into,
    map_tensors,
    same_dtype,
    same_shape,
    tensors_in,
)
from trtplug_registry.rules import Match, RewriteRule, rewrite_rule, rule_pass
from trtplug_registry.selection import Selection, overloads_named
from trtplug_registry.specs import (
    ALL,
    BOOL,
    FLOATS,
    INTS,
    MAX_RANK,
    NUMBERS,
    Anything,
    Axis,
    Either,
    ListOf,
    Negation,
    Not,
    Only,
    Optional,
    Size,
    Spec,
    Static,
    Tensor,
)
from trtplug_registry.support import Reason, ReasonCode, Support, Supported, Unsupported, refuse

__all__ = [
    "ALL",
    "BOOL",
    "CONTRACT",
    "FLOATS",
    "INTS",
    "MAX_RANK",
    "NUMBERS",
    "PHASES",
    "Anything",
    "Axis",
    "Call",
    "Candidate",
    "Capabilities",
    "Choose",
    "Converter",
    "ConverterContext",
    "DeclarationError",
    "Domain",
    "Either",
    "Engine",
    "Example",
    "Executor",
    "Explanation",
    "ListOf",
    "LoweringPass",
    "Match",
    "Negation",
    "NetworkSize",
    "NetworkTensor",
    "Not",
    "Only",
    "Operand",
    "Optional",
    "OutputsUsed",
    "PassOrderError",
    "Plugin",
    "PluginError",
    "PluginManager",
    "PluginWarning",
    "Reason",
    "ReasonCode",
    "Registry",
    "Relation",
    "Restriction",
    "RewriteRule",
    "Selection",
    "Size",
    "Spec",
    "Static",
    "Support",
    "Supported",
    "SymbolicSize",
    "Tensor",
    "TensorFacts",
    "Tolerance",
    "TrtplugError",
    "UnknownNameError",
    "Unsupported",
    "applied",
    "broadcastable",
    "converter",
    "converter_table",
    "decline",
    "describe_tensor",
    "describe_value",
    "dims",
    "distinct_axes",
    "hookimpl",
    "index_into",
    "lowering_pass",
    "map_tensors",
    "nature",
    "order_passes",
    "overloads_named",
    "qualified_name",
    "refuse",
    "resolve",
    "rewrite_rule",
    "rule_pass",
    "same_dtype",
    "same_shape",
    "take_notes",
    "tensors_in",
    "unknown_name",
]
