"""Which models stand behind the student's and the teacher's side, and whether a policy was trained for them.

`tw serve` writes the models that it starts to `served.json` in the state directory (`managed`), and its workers add
what servers elsewhere call theirs (`served`), so that `tw policy promote` can look there. A policy trained for others
is warned about, not refused: names are written in many ways.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "served.json"
ROLES = ("student", "teacher")


class ServedModels:
    """The names under which each side is known; none where nobody knows."""

    def __init__(self, names: Mapping[str, Iterable[str]] | None = None) -> None:
        self.names = {role: tuple(dict.fromkeys((names or {}).get(role, ()))) for role in ROLES}

    @classmethod
    def read(cls, state_dir: Path, *, managed: bool = False) -> "ServedModels":
        """What was written last; nothing where that cannot be read. `managed`: only the models that were started."""
        try:
            content = json.loads((state_dir / FILE).read_text())["managed" if managed else "served"]
            return cls({role: [str(name) for name in content.get(role, [])] for role in ROLES})
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return cls()

    def write(self, state_dir: Path, managed: "ServedModels") -> None:
        handle, name = tempfile.mkstemp(dir=state_dir, prefix=f".{FILE}-")
        with os.fdopen(handle, "w") as file:
            json.dump({"served": self.names, "managed": managed.names}, file)
        os.replace(name, state_dir / FILE)

    def warnings(self, manifest: Mapping[str, Any]) -> list[str]:
        """One sentence per side whose model the policy was not trained for, as far as both are named."""
        found = []
        for role in ROLES:
            trained_for, served = manifest.get(f"{role}_model"), self.names[role]
            if trained_for and served and _plain(str(trained_for)) not in map(_plain, served):
                found.append(
                    f"policy {manifest.get('version')} ({manifest.get('name')}) was trained for the {role} "
                    f"{trained_for}, and {' / '.join(served)} is served; its scores may mean little here: "
                    "train one for this pair"
                )
        return found


def _plain(name: str) -> str:
    """`Qwen/Qwen3-8B`, `/models/Qwen3-8B/` and `qwen3-8b` name the same model."""
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()
