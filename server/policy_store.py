"""Saved policies and which one serves: copies of artifacts under `policies/<version>/` of the state directory, and one
pointer file, `serving.json`, that every worker watches."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from policies.artifact import ArtifactError, load_policy
from policies.policy import Policy


class PolicyStoreError(Exception):
    """The message says which policy, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Serving:
    version: str
    at: float
    previous: tuple[str, ...] = ()
    """Newest first; where `rollback` goes."""


class PolicyStore:
    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "policies"
        self._pointer = self._directory / "serving.json"

    def serving(self) -> Serving | None:
        try:
            row = json.loads(self._pointer.read_text())
            return Serving(str(row["version"]), float(row["at"]), tuple(row["previous"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise PolicyStoreError(f"{self._pointer}: not readable; remove it and promote a policy again") from None

    def stamp(self) -> tuple[int, int] | None:
        """Changes when another policy was promoted."""
        try:
            stat = self._pointer.stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def versions(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(path.name for path in self._directory.iterdir() if (path / "manifest.json").is_file())

    def manifest(self, version: str) -> dict[str, object]:
        self._known(version)
        manifest: dict[str, object] = json.loads((self._directory / version / "manifest.json").read_text())
        return manifest

    def path(self, version: str) -> Path:
        """Where the artifact lies."""
        self._known(version)
        return self._directory / version

    def load(self, version: str) -> Policy:
        try:
            return load_policy(self.path(version))
        except ArtifactError as error:
            raise PolicyStoreError(str(error)) from None

    def add(self, artifact: Path) -> str:
        """Checks an artifact by loading it, keeps a copy, and returns its version."""
        try:
            version = load_policy(artifact).version
        except ArtifactError as error:
            raise PolicyStoreError(str(error)) from None
        target = self._directory / version
        if not target.exists():
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            copy = Path(tempfile.mkdtemp(dir=self._directory, prefix=".incoming-"))
            try:
                shutil.copytree(artifact, copy, dirs_exist_ok=True)
                try:
                    copy.rename(target)
                except OSError:  # another process was quicker with the same version
                    if not target.exists():
                        raise
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        return version

    def promote(self, version: str, now: float) -> Serving:
        """Lets a kept version serve. Promoting the one that serves changes nothing."""
        self._known(version)
        before = self.serving()
        if before is not None and before.version == version:
            return before
        previous = () if before is None else (before.version, *before.previous)[:20]
        return self._point(Serving(version, now, previous))

    def rollback(self, now: float) -> Serving:
        before = self.serving()
        if before is None or not before.previous:
            raise PolicyStoreError("there is no earlier policy to go back to")
        version, *older = before.previous
        self._known(version)
        return self._point(Serving(version, now, tuple(older)))

    def _known(self, version: str) -> None:
        if version not in self.versions():
            known = ", ".join(self.versions()) or "none"
            raise PolicyStoreError(f"no policy {version!r} is kept here; known: {known}")

    def _point(self, serving: Serving) -> Serving:
        handle, name = tempfile.mkstemp(dir=self._directory, prefix=".serving-")
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(serving), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self._pointer)
        return serving
