"""What trtplug logs, and the environment variable that shows it.

Everything goes to standard `logging`, under the logger ``trtplug``, which is quiet unless the program says otherwise or
``TRTPLUG_LOG`` is set: ``TRTPLUG_LOG=info`` shows partitions and engines, ``TRTPLUG_LOG=debug`` also every stage, every
node that is left to Torch and every lowering pass.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from trtplug.errors import SettingsError

if TYPE_CHECKING:
    from trtplug.report import CompilationReport

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_HANDLER = "trtplug"
_log = logging.getLogger("trtplug.report")


def configure_log() -> None:
    """Shows the log on standard error as ``TRTPLUG_LOG`` says; does nothing where it is not set.

    Raises:
        SettingsError: it is no level.
    """
    wanted = os.environ.get("TRTPLUG_LOG", "")
    if not wanted:
        return
    if wanted.lower() not in _LEVELS:
        raise SettingsError(f"TRTPLUG_LOG={wanted}: must be one of {', '.join(_LEVELS)}")
    logger = logging.getLogger("trtplug")
    logger.setLevel(_LEVELS[wanted.lower()])
    if all(handler.name != _HANDLER for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.name = _HANDLER
        handler.setFormatter(logging.Formatter("%(levelname).1s %(name)s: %(message)s"))
        logger.addHandler(handler)


def log_report(report: CompilationReport) -> None:
    """The partition in one line, each engine; at ``debug`` also what is left to Torch, and passes that worked."""
    _log.info(report.summary())
    for engine in report.engines:
        if engine.layers:
            how = " (from the cache)" if engine.cached else ""
            _log.info("engine %d: %d layers, %.2f s%s", engine.index, engine.layers, engine.seconds, how)
    if not _log.isEnabledFor(logging.DEBUG):
        return
    for node in report.torch_ops:
        _log.debug("%s (%s) stays in Torch: %s", node.name, node.op, "; ".join(map(str, node.reasons)))
    for item in report.passes:
        if item["changed"]:
            counts = item["nodes_before"], item["nodes_after"]
            _log.debug("%s: %d → %d nodes, %.4f s", item["id"], *counts, item["seconds"])
