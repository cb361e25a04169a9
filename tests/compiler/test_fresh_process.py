"""What a fresh process loads to answer a question, and who waits for whom while it does."""

from __future__ import annotations

import os
import subprocess
import sys

ASK = """
import sys
import trtplug
report = trtplug.coverage("aten::relu")
heavy = ("torch._dynamo", "sympy", "trtplug.compilation", "trtplug.lowering", "trtplug.network", "rich", "jinja2")
loaded = [name for name in heavy if name in sys.modules]
assert report.ops[0].covered and not loaded, loaded
"""

HELP = """
import contextlib, io, sys
from trtplug.cli import main

def answer(*words):
    sys.argv, out = ["trtplug", *words], io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main()
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()

expected = {
    ("--help",): (0, "plugins"),
    ("--version",): (0, "trtplug "),
    ("plugins", "--help"): (0, "installed plugins"),
    ("compile", "--help"): (0, "--workspace-bytes"),
    ("explain",): (2, "Missing argument"),
    ("compile", "no.pt2"): (1, "there is no file"),
    ("no-such-command",): (2, "no-such-command"),
}
for words, (code, text) in expected.items():
    found = answer(*words)
    assert found[0] == code and text in found[1], (words, found)
    assert "torch" not in sys.modules, words
"""

WAIT = """
import threading
from trtplug.turns import assembling_turn, tracing_turn

entered, release, order = threading.Event(), threading.Event(), []

def assemble():
    with assembling_turn():
        entered.set()
        release.wait()
        order.append("assembled")

def trace():
    with tracing_turn():
        order.append("traced")

threads = [threading.Thread(target=assemble), threading.Thread(target=trace)]
threads[0].start()
entered.wait()
threads[1].start()
threads[1].join(timeout=0.2)
import torch._dynamo
threads[1].join(timeout=0.2)
release.set()
for thread in threads:
    thread.join()
assert order == ["assembled", "traced"], order
"""


def run(code, tmp_path):
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr


def test_a_question_about_an_op_loads_neither_dynamo_nor_sympy_nor_the_pipeline(tmp_path):
    run(ASK, tmp_path)


def test_help_version_and_wrong_usage_do_not_wait_for_torch(tmp_path):
    run(HELP, tmp_path)


def test_who_traces_waits_for_plugins_that_are_being_imported(tmp_path):
    run(WAIT, tmp_path)
