"""Which models stand behind the student's and the teacher's side, and whether a policy was trained for them.

`tw serve` writes the models that it starts to `served.json` in the state directory (`managed`), and its workers add
what servers elsewhere call theirs (`served`), so that `tw policy promote` can look there. A policy trained for others
is warned about, not refused: names are written in many ways.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "served.json"
ROLES = ("student", "teacher")


class ServedModels:
    """The names under which each side is known; none where nobody knows."""

    def __init__(
        self, names: Mapping[str, Iterable[str]] | None = None, teachers: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self.names = {role: tuple(dict.fromkeys((names or {}).get(role, ()))) for role in ROLES}
        self.teachers = {label: tuple(dict.fromkeys(each)) for label, each in (teachers or {}).items()}
        """Of several teachers: the names of each, by its label. Empty where there is one."""

    @classmethod
    def read(cls, state_dir: Path, *, managed: bool = False) -> "ServedModels":
        """What was written last; nothing where that cannot be read. `managed`: only the models that were started."""
        try:
            whole = json.loads((state_dir / FILE).read_text())
            content = whole["managed" if managed else "served"]
            names = {role: [str(name) for name in content.get(role, [])] for role in ROLES}
            several = {} if managed else whole.get("teachers", {})
            return cls(names, {str(label): list(map(str, each)) for label, each in several.items()})
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return cls()

    def write(self, state_dir: Path, managed: "ServedModels") -> None:
        handle, name = tempfile.mkstemp(dir=state_dir, prefix=f".{FILE}-")
        with os.fdopen(handle, "w") as file:
            content: dict[str, Any] = {"served": self.names, "managed": managed.names}
            json.dump(content | ({"teachers": self.teachers} if self.teachers else {}), file)
        os.replace(name, state_dir / FILE)

    def warnings(self, manifest: Mapping[str, Any]) -> list[str]:
        """One sentence per side whose model the policy was not trained for, as far as both are named."""
        found = []
        several = [str(teacher["name"]) for teacher in manifest.get("teachers") or ()]
        if several or self.teachers:
            found += self._teacher_warnings(manifest, several or [str(manifest.get("teacher_model") or "")])
        for role in ROLES[: 1 if several or self.teachers else 2]:
            trained_for, served = manifest.get(f"{role}_model"), self.names[role]
            if trained_for and served and plain(str(trained_for)) not in map(plain, served):
                found.append(
                    f"policy {manifest.get('version')} ({manifest.get('name')}) was trained for the {role} "
                    f"{trained_for}, and {' / '.join(served)} is served; its scores may mean little here: "
                    "train one for this pair"
                )
        return found

    def _teacher_warnings(self, manifest: Mapping[str, Any], trained_for: Sequence[str]) -> list[str]:
        """Where the policy or the gateway has several teachers: who is missing on which side, by name."""
        served = self.teachers or {"teacher": self.names["teacher"]}
        if not all(trained_for) or not all(served.values()):
            return []
        known = set(map(plain, trained_for))
        missing = [name for name in trained_for if not any(plain(name) in map(plain, each) for each in served.values())]
        unknown = [" / ".join(each) for each in served.values() if not known & set(map(plain, each))]
        policy = f"policy {manifest.get('version')} ({manifest.get('name')})"
        said = f"{policy} was trained for the teachers {', '.join(trained_for)}; "
        if len(missing) == len(trained_for):
            return [
                f"{said}none of them is served, but {', '.join(unknown)}, which it takes for them in this order; its"
                " scores may mean little here: train one for these models"
            ]
        found = []
        if missing:
            found.append(f"{said}{', '.join(missing)} is not served, and is never asked")
        if unknown:
            found.append(f"{said}{', '.join(unknown)} is served too, and asked only by name or in another's place")
        return found


def plain(name: str) -> str:
    """`Qwen/Qwen3-8B`, `/models/Qwen3-8B/` and `qwen3-8b` name the same model."""
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()
