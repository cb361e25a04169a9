"""The hook reference, from the specifications: ``python -m trtplug_registry.reference > docs/hooks.md``."""

from __future__ import annotations

import inspect

from trtplug_registry import hookspecs

_HEAD = f"""# Hooks

Generated from `trtplug_registry.hookspecs` by `python -m trtplug_registry.reference > docs/hooks.md`.

A plugin is a module (or object) that an entry point of the group `{hookspecs.GROUP}` names. It states the version of
the contract that it was written for, `trtplug_contract = {hookspecs.CONTRACT}`, and has functions of these names, all
optional, without parameters and side effects. A function named `trtplug_*` that is none of these is an error.
"""


def hook_reference() -> str:
    """Every hook with its signature and what it is for, as Markdown."""
    specs = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.GROUP}_spec")}
    parts = [_HEAD]
    for name, spec in sorted(specs.items()):
        signature = str(inspect.signature(spec)).replace("'", "")  # annotations are strings
        parts.append(f"## {name}\n\n```python\ndef {name}{signature}: ...\n```\n\n{inspect.getdoc(spec)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(hook_reference(), end="")
