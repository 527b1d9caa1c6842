"""Wheels whose hot path is compiled: ZTPROXY_COMPILE=1 pip wheel --no-build-isolation . (`make wheel`).

mypyc makes C of the modules below, from the same source that runs uncompiled: calls between them become C
calls, and attributes of their classes become slots. Needs a C compiler, and in the environment mypy and what
the product imports. Without the variable, and for editable installs, the wheel is plain Python.

GCC compiles twice: what came of the first time counts while `bench.training` uses it, and the second time
lays out by those counts what is taken often side by side, apart from what is not. ZTPROXY_COMPILE=untrained
leaves that out and takes half as long: for trying things.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from copy import copy
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
    *(
        "policy/around.py",
        "policy/circumstances.py",
        "policy/compile.py",
        "policy/engine.py",
        "policy/operations.py",
    ),
    *("policy/folded.py", "policy/opinions.py", "policy/subject.py", "service/identities.py"),
    *("policy/operators.py", "policy/program.py", "policy/routes.py", "policy/shapes.py", "policy/values.py"),
    *("trust/caller.py", "trust/gather.py", "trust/memory.py"),
    *("model/decided.py", "model/frozen.py", "model/passage.py", "model/permit.py", "model/ports.py"),
    *("model/request.py", "model/route.py"),
    *("recording/admit.py", "recording/catalog.py", "recording/entry.py", "recording/growth.py"),
    *("recording/journal.py", "recording/log.py", "recording/passages.py", "recording/sealer.py"),
    *("telemetry/metrics.py", "crypto/ids.py"),
    *("net/clock.py", "net/deadlines.py", "net/outbox.py", "net/rate.py", "net/sources.py", "net/wheel.py"),
)

#: What compiled classes can not be: values of msgspec, and objects that others refer to weakly. Modules that
#: define such stay as they are.
_PLAIN = re.compile(r"^class \w+\(Struct\b|__weakref__", re.MULTILINE)


#: How both compilations are done: calls within the module need no detour, and may be inlined.
FLAGS = ["-fno-plt", "-fvisibility=hidden", "-fno-semantic-interposition"]


class CompiledHotPath(BuildHookInterface):  # type: ignore[misc]  # hatchling is not there when mypy runs
    """Adds the compiled modules to the wheel; Python prefers them to the source beside them."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        how = os.environ.get("ZTPROXY_COMPILE", "")
        if version == "editable" or how not in ("1", "untrained"):
            return
        root, out = Path(self.root), Path(self.directory).resolve() / "compiled"
        with chdir(root):
            found = _compiled(root, out, trained=how == "1")
        for module in found:
            build_data["force_include"][str(module)] = str(module.relative_to(out / "lib"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compiled(root: Path, out: Path, *, trained: bool) -> list[Path]:
    from mypyc.build import mypycify

    shutil.rmtree(out, ignore_errors=True)
    c = out / "c"
    made = mypycify(_sources(root), opt_level="2", multi_file=True, group_name="ztproxy", target_dir=str(c))
    flags = FLAGS
    if trained and _is_gcc() and (root / "bench").is_dir():
        flags = [*FLAGS, *_trained(root, out, made)]
    return _built(made, out / "lib", c, flags)


def _trained(root: Path, out: Path, extensions: Sequence[Any]) -> list[str]:
    """Compile with counters, use that for a while; return the flags of a compiler that goes by the counts."""
    profile, training = out / "profile", out / "training"
    shutil.copytree(root / "ztproxy", training / "ztproxy", ignore=shutil.ignore_patterns("__pycache__"))
    _built(extensions, training, out / "c", [*FLAGS, f"-fprofile-generate={profile}"])
    subprocess.run([sys.executable, "-m", "bench.training", str(training)], cwd=root, check=True)
    if not any(profile.rglob("*.gcda")):
        raise RuntimeError(
            f"the training wrote no counts to {profile}; ZTPROXY_COMPILE=untrained does without"
        )
    # what was not used in training is compiled as if there had been none, instead of for size
    by_counts = ["-fprofile-correction", "-fprofile-partial-training", "-Wno-missing-profile"]
    return [f"-fprofile-use={profile}", *by_counts, "-flto=auto"]


def _sources(root: Path) -> list[str]:
    found = [path for pattern in HOT for path in sorted((root / "ztproxy").glob(pattern))]
    return [
        str(path.relative_to(root))
        for path in found
        if path.name != "__init__.py" and not _PLAIN.search(path.read_text())
    ]


def _built(extensions: Sequence[Any], lib: Path, c: Path, flags: list[str]) -> list[Path]:
    """Compile what mypyc has made of the sources into `lib`."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class InParallel(build_ext):  # type: ignore[misc]
        """Compiles as many files at once as there are processors: nearly all belong to one module."""

        def build_extensions(self) -> None:
            one = self.compiler.compile

            def each(sources: list[str], **options: Any) -> list[str]:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    done = pool.map(lambda source: one([source], **options), sources)
                    return [name for names in done for name in names]

            self.compiler.compile = each
            super().build_extensions()

    modules = [copy(extension) for extension in extensions]
    for module in modules:
        module.extra_compile_args = [*module.extra_compile_args, *flags]
        module.extra_link_args = [*module.extra_link_args, *flags]
    distribution = Distribution({"name": "ztproxy", "ext_modules": modules})
    build = InParallel(distribution)
    build.build_lib, build.build_temp, build.force = str(lib), str(c), True
    build.ensure_finalized()
    build.run()
    return sorted(lib.rglob("*.so"))


def _is_gcc() -> bool:
    asked = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in asked.stdout
