"""The house stands: what the wheel carries, which way imports point, what tracked files and docs say and do not say."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from hatch_build import SOURCES
from policies.compiled import native
from server.cli import VERBS, main
from server.settings import Settings
from tests.docs.commands import PAGE, commands, page

ROOT = Path(__file__).parents[1]
PACKAGES = {"server", "router", "policies", "training"}


@cache
def tracked() -> tuple[Path, ...]:
    """The files that git tracks; in a tree without git (an unpacked archive), what would be."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return tuple(ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())
    folders = (*PACKAGES, "tests", "benchmarks", "docs", "deploy", "examples")
    return tuple(path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())


def build_wheel(out: Path, **environment: str) -> Path:
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names inside a freshly built wheel."""
    return names_in(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_the_wheel_holds_exactly_the_four_packages(wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_carries_the_shipped_pair_and_its_policy(wheel: set[str]) -> None:
    for part in ("student/model.safetensors", "teacher/model.safetensors", "policy/manifest.json"):
        assert f"server/shipped/{part}" in wheel


def test_the_wheel_carries_every_grammar_and_other_file_beside_the_code(wheel: set[str]) -> None:
    beside = {str(path.relative_to(ROOT)) for path in tracked() if path.relative_to(ROOT).parts[0] in PACKAGES}
    assert beside - wheel == set()


def test_the_wheel_carries_what_was_compiled_where_that_is_possible(wheel: set[str]) -> None:
    found = {name.split(".")[0] for name in wheel if name.endswith(".so")}
    assert found == (set() if native is None else {source.removesuffix(".pyx") for source in SOURCES})


def test_a_wheel_can_be_built_without_a_compiler(tmp_path: Path) -> None:
    built = build_wheel(tmp_path, PATH="")
    assert built.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names_in(built))


def test_imports_point_down() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["server.app", "server.cli", "router.language", "policies.artifact"])
def test_serving_imports_nothing_that_only_training_needs(module: str) -> None:
    heavy = ("torch", "transformers", "sklearn", "matplotlib", "pyarrow")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Written in two parts so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.$}])/(?:ho" r"me|Us" r"ers|ro" r"ot|wo" r"rk)/\w",
    "where this machine keeps packages": r"/opt/(?:whe" r"els|py" r"pi)",
    "a registry's host": r"py"
    r"pi\.org|pythonho"
    r"sted\.org|download\.py"
    r"torch\.org|registry\.np"
    r"mjs\.org"
    r"|deb\.deb"
    r"ian\.org",
    "an index URL": r"--(?:extra-)?ind" r"ex-url",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_files_name_no_machine_and_no_registry(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for path in tracked():
        if path.suffix in (".safetensors", ".npz", ".png", ".parquet", ".onnx"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_only_pinned_versions_are_in_the_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line)] == []


def test_constraints_cover_everything_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")
        for requirement in [
            *project["dependencies"],
            *(r for name in ("embedded", "tables", "train", "test") for r in extras[name]),
        ]
    }
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    assert wanted - pinned - {"training-wheels"} == set()


def test_verbs_outside_the_server_are_found_by_name() -> None:
    by_entry_point = {entry.name for entry in entry_points(group="training_wheels.verbs")}
    assert set(main.list_commands(click.Context(main))) == set(VERBS) | by_entry_point


def test_every_verb_has_help() -> None:
    assert [words for words, command in commands().items() if not (command.help or "").strip()] == []


def test_every_verb_and_each_of_its_options_is_in_the_docs() -> None:
    assert PAGE.read_text() == page(), "docs/commands.md is not what the commands say: make docs"


def test_the_operators_page_names_every_verb() -> None:
    text = (ROOT / "docs" / "operators.md").read_text()
    leaves = [words for words, command in commands().items() if not isinstance(command, click.Group)]
    assert [words for words in leaves if f"`{words}`" not in text] == []


def settings(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Each setting by its name in a TOML file: `timeouts.connect_s`."""
    names = []
    for name, field in model.model_fields.items():
        inner = [
            part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(part, type)
        ]
        nested = next((part for part in inner if issubclass(part, BaseModel)), None)
        names += settings(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return names


def test_every_setting_is_in_the_operators_page() -> None:
    text = (ROOT / "docs" / "operators.md").read_text().replace("`teacher.", "`student.")
    names = {name.replace("teacher.", "student.") for name in settings(Settings)}
    # Each of several teachers has a model's settings, and a label.
    names = {name if name == "teachers.label" else name.replace("teachers.", "student.") for name in names}
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_what_deploy_sets_are_settings() -> None:
    known = {"TW_" + name.upper().replace(".", "__") for name in settings(Settings)}
    for name in ("Dockerfile", "compose.yaml"):
        used = set(re.findall(r"\bTW_[A-Z_]+", (ROOT / "deploy" / name).read_text()))
        assert used - known == set(), name


def test_make_names_every_target_it_has() -> None:
    targets = re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )
    assert [line.split()[1] for line in done.stdout.splitlines()] == targets
