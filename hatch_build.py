"""Wheels whose hot path is compiled: ZTPROXY_COMPILE=1 pip wheel --no-build-isolation . (`make wheel`).

mypyc makes C of the modules below, from the same source that runs uncompiled: calls between them become C
calls, and attributes of their classes become slots. Needs a C compiler, and in the environment mypy and what
the product imports. Without the variable, and for editable installs, the wheel is plain Python.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Whole rooms, and what of other rooms a request passes through.
HOT = (
    "gateway/*.py",
    "upstream/*.py",
    "wire/*.py",
    *(
        "administrator/access.py",
        "administrator/asked.py",
        "administrator/audit.py",
        "administrator/evidence.py",
    ),
    *("administrator/floods.py", "administrator/paths.py", "administrator/stencil.py"),
    "administrator/concerned.py",
    *("policy/circumstances.py", "policy/compile.py", "policy/engine.py", "policy/operations.py"),
    "policy/subject.py",
    *("policy/folded.py", "service/identities.py"),
    *("policy/operators.py", "policy/program.py", "policy/routes.py", "policy/values.py"),
    *("trust/caller.py", "trust/gather.py", "trust/memory.py"),
    *("model/frozen.py", "model/permit.py", "model/ports.py", "model/request.py"),
    *("recording/admit.py", "recording/catalog.py", "recording/growth.py", "recording/journal.py"),
    *("recording/log.py", "recording/sealer.py"),
    *("telemetry/metrics.py", "crypto/ids.py"),
    *("net/clock.py", "net/deadlines.py", "net/rate.py", "net/sources.py", "net/wheel.py"),
)

#: What compiled classes can not be: values of msgspec, and objects that others refer to weakly. Modules that
#: define such stay as they are.
_PLAIN = re.compile(r"^class \w+\(Struct\b|__weakref__", re.MULTILINE)


class CompiledHotPath(BuildHookInterface):  # type: ignore[misc]  # hatchling is not there when mypy runs
    """Adds the compiled modules to the wheel; Python prefers them to the source beside them."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        if version == "editable" or os.environ.get("ZTPROXY_COMPILE") != "1":
            return
        root, out = Path(self.root), Path(self.directory) / "compiled"
        for module in _compiled(root, out):
            build_data["force_include"][str(module)] = str(module.relative_to(out))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compiled(root: Path, out: Path) -> list[Path]:
    from mypyc.build import mypycify
    from setuptools import Distribution

    package = root / "ztproxy"
    found = [path for pattern in HOT for path in sorted(package.glob(pattern))]
    sources = [
        str(path.relative_to(root))
        for path in found
        if path.name != "__init__.py" and not _PLAIN.search(path.read_text())
    ]
    before = Path.cwd()
    os.chdir(root)
    try:
        extensions = mypycify(
            sources, opt_level="3", multi_file=True, group_name="ztproxy", target_dir=str(out / "c")
        )
        distribution = Distribution({"name": "ztproxy", "ext_modules": extensions})
        build = distribution.get_command_obj("build_ext")
        build.build_lib, build.build_temp = str(out), str(out / "c")
        build.parallel = os.cpu_count()
        build.ensure_finalized()
        build.run()
    finally:
        os.chdir(before)
    return sorted(out.rglob("*.so"))
