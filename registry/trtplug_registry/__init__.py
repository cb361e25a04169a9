"""The contract between trtplug and its plugins. A plugin imports only this package.

Declare converters with `converter` and `converter_table`, their arguments with a `Domain`, graph rewrites with
`lowering_pass` or as a `rule_pass` of patterns; return them from the hooks in `trtplug_registry.hookspecs`. Importing
this imports no TensorRT, and Torch only with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtplug_registry.aliasing import Returned, may_be_view, reaches_output
    from trtplug_registry.bodies import Body, BodyFacts
    from trtplug_registry.context import ConverterContext, NetworkBody, NetworkSize, NetworkTensor, Operand
    from trtplug_registry.conversion import (
        DATA_DEPENDENT_SHAPES,
        Converter,
        Tolerance,
        converter,
        converter_table,
        qualified_name,
        resolve,
    )
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
    from trtplug_registry.executor import Engine, Executor, RunOptions, ShapeRange
    from trtplug_registry.facts import Call, SymbolicSize, TensorFacts, describe_tensor, describe_value
    from trtplug_registry.hookspecs import CONTRACT, hookimpl
    from trtplug_registry.natures import has_data_dependent_shape, is_collective, nature
    from trtplug_registry.nested import Either, ListOf, Optional
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
    from trtplug_registry.pipeline import Pipeline, Ruling, arrange_passes
    from trtplug_registry.plugins import Plugin, PluginManager
    from trtplug_registry.refusals import Capabilities
    from trtplug_registry.registry import Candidate, Explanation, Registry
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
    from trtplug_registry.rules import Match, RewriteRule, free_name, rewrite_rule, rule_pass
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
        Negation,
        Not,
        Only,
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
    "DATA_DEPENDENT_SHAPES",
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
    "Returned",
    "RewriteRule",
    "Ruling",
    "RunOptions",
    "Selection",
    "ShapeRange",
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
    "free_name",
    "has_data_dependent_shape",
    "hookimpl",
    "index_into",
    "is_collective",
    "lowering_pass",
    "map_tensors",
    "may_be_view",
    "nature",
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

_HOME = {
    "aliasing": "Returned may_be_view reaches_output",
    "bodies": "Body BodyFacts",
    "context": "ConverterContext NetworkBody NetworkSize NetworkTensor Operand",
    "conversion": "DATA_DEPENDENT_SHAPES Converter Tolerance converter converter_table qualified_name resolve",
    "domain": "Domain Restriction",
    "errors": "DeclarationError PassOrderError PluginError PluginWarning TrtplugError UnknownNameError unknown_name",
    "examples": "Example",
    "executor": "Engine Executor RunOptions ShapeRange",
    "facts": "Call SymbolicSize TensorFacts describe_tensor describe_value",
    "hookspecs": "CONTRACT hookimpl",
    "natures": "has_data_dependent_shape is_collective nature",
    "nested": "Either ListOf Optional",
    "passes": "PHASES DisablePass LoweringPass OrderPasses applied decline lowering_pass take_notes",
    "pipeline": "Pipeline Ruling arrange_passes",
    "plugins": "Plugin PluginManager",
    "refusals": "Capabilities",
    "registry": "Candidate Explanation Registry",
    "relations": (
        "Choose OutputsUsed Relation broadcastable dims distinct_axes index_into map_tensors same_dtype same_shape "
        "tensors_in"
    ),
    "rules": "Match RewriteRule free_name rewrite_rule rule_pass",
    "selection": "Selection overloads_named",
    "specs": "ALL BOOL FLOATS INTS MAX_RANK NUMBERS Anything Axis Negation Not Only Size Spec Static Tensor",
    "support": "Reason ReasonCode Support Supported Unsupported refuse",
}
_MODULE_OF = {name: f"trtplug_registry.{module}" for module, names in _HOME.items() for name in names.split()}


if not TYPE_CHECKING:  # to a type checker a misspelt name is an error

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'trtplug_registry' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
