"""The contract between trtplug and its plugins. A plugin imports only this package.

Declare converters with `converter` and `converter_table`, their arguments with a `Domain`, graph rewrites with
`lowering_pass` or as a `rule_pass` of patterns; return them from the hooks in `trtplug_registry.hookspecs`. Importing
this imports no TensorRT.
"""

from trtplug_registry.aliasing import may_be_view, reaches_output
from trtplug_registry.bodies import Body, BodyFacts
from trtplug_registry.context import ConverterContext, NetworkBody, NetworkSize, NetworkTensor, Operand
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
from trtplug_registry.executor import Engine, Executor, RunOptions
from trtplug_registry.facts import Call, SymbolicSize, TensorFacts, describe_tensor, describe_value
from trtplug_registry.hookspecs import CONTRACT, hookimpl
from trtplug_registry.nature import is_collective, nature
from trtplug_registry.passes import (
    PHASES,
    DisablePass,
    LoweringPass,
    OrderPasses,
    applied,
    decline,
    lowering_pass,
    take_notes,
)
from trtplug_registry.pipeline import Pipeline, Ruling, arrange_passes, order_passes
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
    "Body",
    "BodyFacts",
    "Call",
    "Candidate",
    "Capabilities",
    "Choose",
    "Converter",
    "ConverterContext",
    "DeclarationError",
    "DisablePass",
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
    "NetworkBody",
    "NetworkSize",
    "NetworkTensor",
    "Not",
    "Only",
    "Operand",
    "Optional",
    "OrderPasses",
    "OutputsUsed",
    "PassOrderError",
    "Pipeline",
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
    "Ruling",
    "RunOptions",
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
    "arrange_passes",
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
    "is_collective",
    "lowering_pass",
    "map_tensors",
    "may_be_view",
    "nature",
    "order_passes",
    "overloads_named",
    "qualified_name",
    "reaches_output",
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
