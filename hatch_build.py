"""Compiles two modules into the wheel where that is possible. Where it is not, one line says so and nothing is missing:
Python does the same (docs/decisions/0015). For an editable install the modules are put beside their sources.

It needs Cython, a C compiler and Python's headers. Each is one file and one command, so no setuptools.
"""

import hashlib
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = ("policies/_native.pyx", "policies/_values.pyx")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


class CannotCompile(Exception):
    pass


class NativeHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        self._folder = Path(tempfile.mkdtemp())
        try:
            modules = [compiled(root, source, self._folder) for source in SOURCES]
        except CannotCompile as why:
            self.app.display_warning(f"nothing is compiled, and Python does all the work: {why}")
            return
        if version == "editable":
            for module in modules:
                # By one rename: a process may have the old one open.
                beside = root / "policies" / f".{module.name}"
                shutil.copyfile(module, beside)
                beside.rename(beside.with_name(module.name))
            return
        build_data["force_include"] |= {str(module): f"policies/{module.name}" for module in modules}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        shutil.rmtree(self._folder, ignore_errors=True)


def source_hash(root: Path, source: str) -> str:
    """What a module says it was made from, so that a test can see one that has been left behind."""
    return hashlib.sha256((root / source).read_bytes()).hexdigest()[:16]


def compiled(root: Path, source: str, folder: Path) -> Path:
    """The module, made in `folder`. Raises CannotCompile."""
    try:
        from Cython.Compiler.Errors import CompileError
        from Cython.Compiler.Main import compile as translate
    except ImportError:
        raise CannotCompile("Cython is not installed") from None
    linker = sysconfig.get_config_var("LDSHARED")
    if not linker or not SUFFIX:
        raise CannotCompile("this Python does not say how its modules are linked")
    name = Path(source).stem
    c_file, module = folder / f"{name}.c", folder / f"{name}{SUFFIX}"
    try:
        errors = translate(str(root / source), output_file=str(c_file), full_module_name=f"policies.{name}").num_errors
    except CompileError as error:
        raise CannotCompile(f"{source}: {error}") from None
    if errors:
        raise CannotCompile(f"{source}: Cython finds {errors} errors")
    command = [
        *shlex.split(linker),
        *shlex.split(sysconfig.get_config_var("CCSHARED") or ""),
        # No fused multiply-add: sums are what they are in Python on every machine.
        *("-O3", "-DNDEBUG", "-ffp-contract=off", f'-DMADE_FROM="{source_hash(root, source)}"'),
        f"-I{sysconfig.get_paths()['include']}",
        *(str(c_file), "-o", str(module), "-lm"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotCompile(f"no C compiler ({error})") from None
    if done.returncode:
        raise CannotCompile(f"the C compiler: {(done.stderr.strip() or 'it failed').splitlines()[0]}")
    return module
