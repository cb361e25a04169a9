# Makes the source tree importable as if installed, entry points and all, where nothing can be installed. To be sourced:
#
#   . benchmarks/from_tree.sh && python3 benchmarks/gpu.py
#
site=$(mktemp -d) && python3 - "$site" <<'P'
import sys, tomllib
from pathlib import Path
project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
info = Path(sys.argv[1]) / f"{project['name']}-{project['version']}.dist-info"
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
groups = {**project["entry-points"], "console_scripts": project["scripts"]}
lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items()) for group, names in groups.items()]
(info / "entry_points.txt").write_text("\n".join(lines))
P
export PYTHONPATH="$PWD/registry:$PWD/converters:$PWD/lowering_passes:$PWD/compiler:$site${PYTHONPATH:+:$PYTHONPATH}"
