"""An artifact: a directory with `manifest.json` and `weights.npz`, together a policy (contract 2 with training).

ArtifactError
  ArtifactMissing     no directory, no manifest, no weights
  ArtifactCorrupted   the hash of the weights differs, or a file cannot be read
  ArtifactTooNew      written by a later version of this program
  ArtifactUnknown     a kind of policy or features that this version does not know
  EncoderMissing      the sentence encoder that it was trained with is not here (policies/sentences.py)
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from policies.estimators import Arrays
from policies.features import FEATURES_HASH
from policies.policy import Policy, Signals

FORMAT_VERSION = 1
NEWEST_FORMAT = 2
"""2: a policy that knows several teachers. Programs from before refuse it; those with one are as they were."""
MANIFEST = "manifest.json"
WEIGHTS = "weights.npz"
_OPTIONS = ("encoder", "samples", "cached", "teachers")


class ArtifactError(Exception):
    """The artifact cannot be used; the message names the path, the reason and the remedy."""


class ArtifactMissing(ArtifactError):
    pass


class ArtifactCorrupted(ArtifactError):
    pass


class ArtifactTooNew(ArtifactError):
    pass


class ArtifactUnknown(ArtifactError):
    pass


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known about a policy besides its weights. `version` and `weights_sha256` are filled in by saving."""

    kind: str
    name: str
    signals: Signals
    student_model: str | None = None
    teacher_model: str | None = None
    data_sha256: dict[str, str] = field(default_factory=dict)
    """File name -> digest of the tables it was trained on."""
    seed: int | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    """ISO 8601."""
    features_hash: str = FEATURES_HASH
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION
    encoder: dict[str, Any] | None = None
    """Name, SHA-256 and kept numbers of the sentence encoder that it looks through (`policies.sentences`)."""
    samples: dict[str, Any] | None = None
    """How many short samples of the student it looks at beside the draft, and how long (`policies.samples`)."""
    cached: list[str] | None = None
    """The names of the features of prefix caches, where it looks at them (`policies.cached`)."""

    teachers: list[dict[str, Any]] | None = None
    """Where there are several: `name` and `usd_per_call` (the mean on the table, null where unknown) of each, in order.
    The first is `teacher_model`."""

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Of several teachers; empty where there is one."""
        return tuple(str(teacher["name"]) for teacher in self.teachers or ())

    def content(self) -> dict[str, Any]:
        """What is written; options that are off leave no trace, so that versions are what they were without them."""
        return {key: value for key, value in asdict(self).items() if value is not None or key not in _OPTIONS}

    @property
    def version(self) -> str:
        """12 hex digits over everything but the date, so that the same training gives the same version."""
        content = {key: value for key, value in self.content().items() if key != "created"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


Builder = Callable[[Manifest, Arrays], Policy]


def _builders() -> dict[str, Builder]:
    # Imported here because the policies themselves save through this module.
    from policies import baselines, wheels

    return {**baselines.BUILDERS, "wheels": wheels.WheelsPolicy.from_artifact}


def save_artifact(
    directory: str | Path, manifest: Manifest, arrays: Mapping[str, Any], extra: Mapping[str, bytes] | None = None
) -> Manifest:
    """Write the artifact and `extra` files (name -> bytes) beside it; returns the manifest as written.

    A reader never takes up a half-written policy: a new directory appears by one rename; in an existing one files are
    replaced one by one, the manifest last, and until then the hash does not match.
    """
    directory = Path(directory)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    weights = buffer.getvalue()
    version = NEWEST_FORMAT if manifest.teachers else FORMAT_VERSION
    manifest = replace(manifest, weights_sha256=hashlib.sha256(weights).hexdigest(), format_version=version)
    shown = {**manifest.content(), "version": manifest.version}
    files = {**(extra or {}), WEIGHTS: weights, MANIFEST: (json.dumps(shown, indent=2) + "\n").encode()}
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        temporary.chmod(0o755)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if not directory.exists():
            temporary.rename(directory)
            return manifest
        for name in files:
            os.replace(temporary / name, directory / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def read_manifest(directory: str | Path) -> Manifest:
    """The manifest alone. Raises ArtifactError."""
    path = Path(directory) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactMissing(f"{path}: no such file; a policy is a directory made by `tw train policy`") from None
    except OSError as error:
        raise ArtifactCorrupted(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactCorrupted(f"{path}: not JSON ({error}); train or copy the policy again") from None
    if not isinstance(content, dict) or not isinstance(content.get("format_version"), int):
        raise ArtifactCorrupted(f"{path}: no format_version in it; train or copy the policy again")
    if content["format_version"] > NEWEST_FORMAT:
        raise ArtifactTooNew(
            f"{path}: format version {content['format_version']}, and this program knows versions up to"
            f" {NEWEST_FORMAT}; update training-wheels, or train the policy again with this one"
        )
    content.pop("version", None)
    try:
        manifest = Manifest(**content)
        names = manifest.teacher_names
    except (TypeError, KeyError) as error:
        raise ArtifactCorrupted(f"{path}: {error}; train or copy the policy again") from None
    several = manifest.format_version > 1
    if several != bool(names) or len(set(names)) < len(names) or len(names) == 1:
        raise ArtifactCorrupted(
            f"{path}: format version {manifest.format_version} with the teachers {list(names)};"
            " version 2, and no other, names several; train or copy the policy again"
        )
    if manifest.signals not in get_args(Signals):
        known = ", ".join(get_args(Signals))
        raise ArtifactUnknown(
            f"{path}: the policy looks at the signals {manifest.signals!r}, and this program knows {known};"
            " update training-wheels, or train the policy again with this version"
        )
    return manifest


def load_artifact(directory: str | Path) -> tuple[Manifest, Arrays]:
    """Manifest and arrays, the hash checked. Raises ArtifactError."""
    manifest = read_manifest(directory)
    path = Path(directory) / WEIGHTS
    try:
        weights = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactMissing(f"{path}: no such file; train or copy the policy again") from None
    except OSError as error:
        raise ArtifactCorrupted(f"{path}: cannot be read: {error.strerror}") from None
    found = hashlib.sha256(weights).hexdigest()
    if found != manifest.weights_sha256:
        raise ArtifactCorrupted(
            f"{path}: SHA-256 is {found[:12]}..., the manifest says {manifest.weights_sha256[:12]}...;"
            " the file was damaged or replaced; copy or train the policy again"
        )
    if manifest.features_hash != FEATURES_HASH:
        raise ArtifactUnknown(
            f"{path}: made for features {manifest.features_hash}, and this program computes {FEATURES_HASH};"
            " train the policy again with this version"
        )
    try:
        with np.load(io.BytesIO(weights), allow_pickle=False) as archive:
            return manifest, dict(archive)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise ArtifactCorrupted(f"{path}: not a file of weights; copy or train the policy again") from None


def load_policy(directory: str | Path) -> Policy:
    """The policy of an artifact directory. Raises ArtifactError."""
    manifest, arrays = load_artifact(directory)
    builder = _builders().get(manifest.kind)
    if builder is None:
        known = ", ".join(sorted(_builders()))
        raise ArtifactUnknown(f"{directory}: unknown kind of policy {manifest.kind!r}; this version knows {known}")
    try:
        return builder(manifest, arrays)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ArtifactCorrupted(f"{directory}: weights do not fit the kind {manifest.kind!r}: {error}") from None
