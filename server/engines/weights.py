"""Looking at a model directory without torch: is it one, is it whole, how big is it.

Both engines would find out as well, vLLM after half a minute and in a page of traceback.
"""

import json
from pathlib import Path

from server.engines.hardware import cores
from server.engines.spec import UnusableWeights

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")
WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
_ONE_THREAD_BYTES = 200 << 20


def is_directory(model: str) -> bool:
    """Whether `model` means a directory rather than a name on the hub: it is one, or is written like a path."""
    return Path(model).expanduser().is_dir() or model.startswith(("/", "./", "../", "~"))


def weight_files(directory: Path) -> list[Path]:
    for pattern in WEIGHT_PATTERNS:
        found = sorted(directory.glob(pattern))
        if found:
            return found
    return []


def weight_bytes(model: str) -> int | None:
    """The size of the weights of a model directory; None for a name, whose size is not known here."""
    if not is_directory(model):
        return None
    return sum(path.stat().st_size for path in weight_files(Path(model).expanduser()))


def is_masked_diffusion(directory: str) -> bool:
    """Whether the config.json of a model directory says so; False where it cannot be read, which others will tell."""
    try:
        settings = json.loads((Path(directory).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "masked_diffusion" in settings


def default_threads(model_name: str) -> int:
    """One for small models: there, a second thread costs more than it brings."""
    size = weight_bytes(model_name)
    return 1 if size is not None and size < _ONE_THREAD_BYTES else max(1, len(cores()) // 2)


def check_directory(model: str) -> None:
    """Raises UnusableWeights unless `model` is a name, or a directory with config, tokenizer and whole weights."""
    if not is_directory(model):
        return
    directory = Path(model).expanduser()
    if not directory.is_dir():
        raise UnusableWeights(f"{directory} is not a directory; give a model directory or a name on the hub")
    config = directory / "config.json"
    if not config.is_file():
        raise UnusableWeights(
            f"{directory} is not a model directory: it has no config.json; give the directory that "
            "`save_pretrained` wrote"
        )
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnusableWeights(f"{config} is not JSON ({error}); copy the model again") from None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise UnusableWeights(f"{config} names no model_type; it is not the configuration of a transformers model")
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise UnusableWeights(
            f"{directory} has weights but no tokenizer (tokenizer.json is missing); save the tokenizer into it with "
            "`tokenizer.save_pretrained`"
        )
    files = weight_files(directory)
    if not files:
        raise UnusableWeights(f"{directory} has no weights (*.safetensors); copy the model again")
    for path in files:
        if path.suffix == ".safetensors":
            _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    """Format: 8 bytes with the header's length, the header in JSON, then exactly the tensors' bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise UnusableWeights(f"{path} is cut short or not a safetensors file; copy the model again")
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise UnusableWeights(f"{path} has a broken header; copy the model again") from None
    if size != 8 + length + end:
        raise UnusableWeights(
            f"{path} has {size:,} bytes where its header promises {8 + length + end:,}; copy the model again"
        )
