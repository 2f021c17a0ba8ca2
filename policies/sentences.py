"""What a sentence encoder says of a prompt, in a few numbers: an option of training, off unless asked for.

Idea: a local encoder of the sentence-transformers kind (a transformer and a pooling) reads the last user message; a
projection fitted on the training rows keeps the directions in which prompts differ most. The artifact holds the
projection and the encoder's name and hash, not the encoder. torch and transformers (the extra `encoder`) are imported
when the first text is read, which in service happens in the policy's own process.
"""

import hashlib
import importlib.util
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from policies.artifact import ArtifactError
from policies.estimators import Arrays
from policies.prompt_features import Floats

MOST_TOKENS = 256
"""Tokens of a message that are looked at; the encoder's own limit where that is smaller."""
_CHARACTERS_PER_TOKEN = 16
"""Of a longer message the tokeniser is spared the end."""
_REMEMBERED = 4096
VARIABLE = "TW_ENCODER"
"""Environment variable with a directory to look in instead of the place that the artifact names."""
_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""What decides about an encoder's numbers, and what its hash covers; not all encoders have all of them."""


class EncoderMissing(ArtifactError):
    """The encoder that a policy was trained with, or the packages that run it, are not here."""


class Encoder(Protocol):
    """Texts to vectors; the same text always gives the same vector, whatever was read beside it."""

    @property
    def name(self) -> str:
        """A directory or a hub name."""
        ...

    @property
    def sha256(self) -> str: ...

    def warm(self) -> None:
        """Loads what reading needs, so that no text waits for it."""
        ...

    def read(self, texts: Sequence[str]) -> Floats:
        """(B,) -> (B, D), each row of length one."""
        ...


def encoder_sha256(directory: Path) -> str:
    """Hex digest over the names and contents of the files that decide about the numbers."""
    digest = hashlib.sha256()
    for name in _FILES:
        if (directory / name).is_file():
            with (directory / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def find_encoder(name: str, *, sha256: str | None = None, download: bool = False) -> "LocalEncoder":
    """The encoder of a directory, or of a hub name that lies in the hub's cache (`download`: or is fetched).

    With `sha256` it must be the very one, and `TW_ENCODER` may say where it lies. Raises EncoderMissing.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise EncoderMissing(
                f"the sentence encoder {name!r} needs {package}, which is not installed:"
                " pip install 'training-wheels[encoder]', or use a policy trained without --encoder"
            )
    moved = os.environ.get(VARIABLE) if sha256 is not None else None
    directory = Path(moved or name).expanduser()
    if not directory.is_dir():
        directory = _in_the_hub(name, directory, download=download)
    elif sha256 is None:
        name = str(directory.absolute())  # a policy is served from wherever it may be
    if not (directory / "config.json").is_file() or not (directory / "model.safetensors").is_file():
        raise EncoderMissing(f"{directory}: no sentence encoder; config.json and model.safetensors are looked for")
    found = encoder_sha256(directory)
    if sha256 is not None and found != sha256:
        raise EncoderMissing(
            f"{directory}: another encoder ({found[:12]}...) than the policy was trained with ({sha256[:12]}...);"
            f" put that one there, name its directory in {VARIABLE}, or train the policy again"
        )
    return LocalEncoder(name, directory, found)


def _in_the_hub(name: str, directory: Path, *, download: bool) -> Path:
    where = f"{directory}: no such directory"
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        for local in (True, False) if download else (True,):
            try:
                return Path(snapshot_download(name, local_files_only=local, allow_patterns=list(_FILES)))
            except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
                continue
        where = f"{name}: neither a directory here nor a model in the hub's cache"
    raise EncoderMissing(
        f"{where}; the policy's sentence encoder is looked for. Copy its directory here and name it in {VARIABLE},"
        " or use a policy trained without --encoder"
    )


class LocalEncoder:
    """An encoder in a directory: `transformers` runs it on the CPU, one text at a time.

    One at a time because padding beside a longer text would change the last bits, and what training saw must be what
    service sees.
    """

    def __init__(self, name: str, directory: Path, sha256: str) -> None:
        self.name = name
        self.sha256 = sha256
        self._directory = directory
        self._loaded: tuple[Any, Any, bool, int] | None = None
        self._remembered: OrderedDict[str, Floats] = OrderedDict()

    def warm(self) -> None:
        self.read(["ready?"])

    def read(self, texts: Sequence[str]) -> Floats:
        return np.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> Floats:
        # The route step and the defer step of a request ask for the same text.
        found = self._remembered.get(text)
        if found is None:
            found = self._remembered[text] = self._embed(text)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    def _embed(self, text: str) -> Floats:
        import torch

        tokenizer, model, first_token, most = self._load()
        cut = text.encode("utf-8", "replace").decode()[: most * _CHARACTERS_PER_TOKEN]
        tokens = tokenizer(cut, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            states = model(**tokens).last_hidden_state[0]
        pooled = states[0] if first_token else states.mean(dim=0)
        vector: Floats = pooled.numpy().astype(np.float64)
        length = float(np.sqrt(vector @ vector))
        return vector / length if np.isfinite(length) and length > 0 else np.zeros_like(vector)

    def _load(self) -> tuple[Any, Any, bool, int]:
        if self._loaded is None:
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
            try:
                tokenizer = AutoTokenizer.from_pretrained(self._directory, local_files_only=True)
                model = AutoModel.from_pretrained(self._directory, local_files_only=True, dtype=torch.float32).eval()
            except Exception as error:  # whatever a damaged or unknown model makes transformers say
                raise EncoderMissing(f"{self._directory}: the sentence encoder cannot be loaded: {error}") from None
            pooling = _json(self._directory / "1_Pooling" / "config.json")
            said = _json(self._directory / "sentence_bert_config.json").get("max_seq_length")
            limits = (said, getattr(model.config, "max_position_embeddings", None), MOST_TOKENS)
            most = min(limit for limit in limits if isinstance(limit, int))
            self._loaded = (tokenizer, model, bool(pooling.get("pooling_mode_cls_token")), most)
        return self._loaded


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True, eq=False)
class Sentences:
    """An encoder and the directions that are kept of it. D numbers come out of the encoder, K are kept."""

    encoder: Encoder
    mean: Floats
    """(D,)"""
    axes: Floats
    """(D, K), scaled so that each kept number has a spread of one on the training rows."""

    @property
    def size(self) -> int:
        return len(self.axes.T)

    def read(self, texts: Sequence[str]) -> Floats:
        """(B,) last user messages -> (B, K)"""
        return self.project(self.encoder.read(texts))

    def project(self, vectors: Floats) -> Floats:
        """(B, D) -> (B, K)"""
        # Row by row: a product of matrices rounds otherwise than one of a vector, and parity would be lost.
        return np.stack([(vector - self.mean) @ self.axes for vector in vectors])

    def describe(self) -> dict[str, str | int]:
        """For the manifest."""
        return {"name": self.encoder.name, "sha256": self.encoder.sha256, "size": self.size}

    def arrays(self) -> Arrays:
        return {"sentences.mean": self.mean, "sentences.axes": self.axes}

    @classmethod
    def from_arrays(cls, encoder: Encoder, arrays: Arrays) -> Self:
        mean, axes = (np.asarray(arrays[f"sentences.{name}"], np.float64) for name in ("mean", "axes"))
        return cls(encoder, mean, axes)


def sentence_names(size: int) -> tuple[str, ...]:
    """Names of the features, in order."""
    return tuple(f"sentence_{place}" for place in range(size))
