"""Saved policies and what each of them does: copies of artifacts under `policies/<version>/` of the state directory,
one pointer file, `serving.json`, that every worker watches, and `history.jsonl`, which says what was done when."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policies.artifact import ArtifactError, load_policy, read_manifest
from policies.policy import Policy


class PolicyStoreError(Exception):
    """The message says which policy, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Serving:
    version: str
    at: float
    previous: tuple[str, ...] = ()
    """Newest first; where `rollback` goes."""
    canary: str | None = None
    canary_share: float = 0.0
    """The share of conversations that the canary decides."""
    shadow: str | None = None

    def role_of(self, version: str) -> str | None:
        """serving, canary or shadow; None for a policy that only lies here."""
        match version:
            case self.version:
                return "serving"
            case self.canary:
                return "canary"
            case self.shadow:
                return "shadow"
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the history."""

    at: float
    event: str
    """added, promoted, rolled_back, canary, canary_off, shadow, or shadow_off"""
    version: str
    source: str | None = None
    """Of an added policy: the directory it was copied from."""
    instead_of: str | None = None
    """Of one that serves: the version that served before."""
    share: float | None = None
    """Of a canary."""


class PolicyStore:
    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "policies"
        self._pointer = self._directory / "serving.json"
        self._history = self._directory / "history.jsonl"

    # What is there

    def serving(self) -> Serving | None:
        try:
            row = json.loads(self._pointer.read_text())
            return Serving(
                str(row["version"]),
                float(row["at"]),
                tuple(map(str, row["previous"])),
                row.get("canary"),
                float(row.get("canary_share", 0.0)),
                row.get("shadow"),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PolicyStoreError(f"{self._pointer}: not readable; remove it and promote a policy again") from None

    def stamp(self) -> tuple[int, int] | None:
        """Changes when another policy was given something to do."""
        try:
            stat = self._pointer.stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def versions(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        return sorted(path.name for path in self._directory.iterdir() if _is_kept(path))

    def history(self) -> list[Event]:
        """Oldest first. A line that cannot be read is passed over: nothing depends on it."""
        try:
            lines = self._history.read_text().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                found.append(Event(**json.loads(line)))
        return found

    def manifest(self, version: str) -> dict[str, Any]:
        """Raises PolicyStoreError."""
        try:
            manifest = read_manifest(self.path(version))
        except ArtifactError as error:
            raise PolicyStoreError(str(error)) from None
        return {**manifest.content(), "version": manifest.version}

    def path(self, version: str) -> Path:
        """Where the artifact lies. Raises PolicyStoreError for an unknown version."""
        path = self._directory / version
        if path.parent != self._directory or not _is_kept(path):
            known = ", ".join(self.versions()) or "none"
            raise PolicyStoreError(f"no policy {version!r} is kept here; known: {known}")
        return path

    def load(self, version: str) -> Policy:
        return _load(self.path(version))

    # What is done

    def add(self, artifact: Path, now: float = 0.0) -> str:
        """Checks an artifact by loading it, keeps a copy, and returns its version."""
        version = _load(artifact).version
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
            self._tell(Event(now, "added", version, source=str(artifact.absolute())))
        return version

    def promote(self, version: str, now: float) -> Serving:
        """Lets a kept version serve. Promoting the one that serves changes nothing."""
        with self._alone():
            before = self.serving()
            if before is not None and before.version == version:
                return before
            self.load(version)  # it may have been damaged where it lies
            if before is None:
                after = Serving(version, now)
            else:
                after = replace(
                    _without(before, version), version=version, at=now, previous=(before.version, *before.previous)[:20]
                )
            instead_of = None if before is None else before.version
            return self._point(after, Event(now, "promoted", version, instead_of=instead_of))

    def rollback(self, now: float) -> Serving:
        with self._alone():
            before = self.serving()
            if before is None or not before.previous:
                raise PolicyStoreError("there is no earlier policy to go back to")
            version, *older = before.previous
            self.load(version)
            after = replace(_without(before, version), version=version, at=now, previous=tuple(older))
            return self._point(after, Event(now, "rolled_back", version, instead_of=before.version))

    def set_canary(self, version: str, share: float, now: float) -> Serving:
        """Lets `version` decide a share of the conversations."""
        if not 0.0 < share < 1.0:
            raise PolicyStoreError(f"a canary's share lies above 0% and below 100%, not at {share:.4g}")
        with self._alone():
            before = self._beside(version, "canary")
            shadow = None if before.shadow == version else before.shadow
            after = replace(before, canary=version, canary_share=share, shadow=shadow)
            return self._point(after, Event(now, "canary", version, share=share))

    def set_shadow(self, version: str, now: float) -> Serving:
        """Lets `version` be asked about everything, and act on nothing."""
        with self._alone():
            before = self._beside(version, "shadow")
            if before.canary == version:
                before = replace(before, canary=None, canary_share=0.0)
            return self._point(replace(before, shadow=version), Event(now, "shadow", version))

    def canary_off(self, now: float) -> Serving:
        with self._alone():
            before = self._serving()
            if before.canary is None:
                raise PolicyStoreError("there is no canary")
            after = replace(before, canary=None, canary_share=0.0)
            return self._point(after, Event(now, "canary_off", before.canary))

    def shadow_off(self, now: float) -> Serving:
        with self._alone():
            before = self._serving()
            if before.shadow is None:
                raise PolicyStoreError("there is no shadow")
            return self._point(replace(before, shadow=None), Event(now, "shadow_off", before.shadow))

    def _serving(self) -> Serving:
        serving = self.serving()
        if serving is None:
            raise PolicyStoreError("no policy serves yet; start the gateway, or tw policy promote one")
        return serving

    def _beside(self, version: str, role: str) -> Serving:
        self.load(version)
        before = self._serving()
        if before.version == version:
            raise PolicyStoreError(f"policy {version} serves already; a {role} is another one beside it")
        return before

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """What is read under this lock is what is replaced."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _point(self, serving: Serving, event: Event) -> Serving:
        handle, name = tempfile.mkstemp(dir=self._directory, prefix=".serving-")
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(serving), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self._pointer)
        self._tell(event)
        return serving

    def _tell(self, event: Event) -> None:
        line = json.dumps({key: value for key, value in asdict(event).items() if value is not None})
        with self._history.open("a") as file:
            file.write(line + "\n")


def _is_kept(path: Path) -> bool:
    return not path.name.startswith(".") and (path / "manifest.json").is_file()


def _without(serving: Serving, version: str) -> Serving:
    """One that serves is neither canary nor shadow."""
    if serving.canary == version:
        serving = replace(serving, canary=None, canary_share=0.0)
    return replace(serving, shadow=None) if serving.shadow == version else serving


def _load(path: Path) -> Policy:
    try:
        return load_policy(path)
    except ArtifactError as error:
        raise PolicyStoreError(str(error)) from None
