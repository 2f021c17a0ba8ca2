"""The shipped student with a `<help>` of its own, as `tw distill wheels` leaves one."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from server.settings import SHIPPED


def student_that_asks(directory: Path, digit: str = "7") -> Path:
    """It asks where it would write that digit: the new token's embedding is the digit's, a little longer, and so is its
    logit."""
    shutil.copytree(SHIPPED / "student", directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    config = json.loads((directory / "config.json").read_text())
    new = config["vocab_size"]
    known = tokenizer["model"]["vocab"][digit]
    like = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"].append({"id": new, "content": "<help>", **like})
    weights = load_file(directory / "model.safetensors")
    name = "model.embed_tokens.weight"
    weights[name] = np.concatenate([weights[name], 1.05 * weights[name][known][None]])
    config["vocab_size"] = new + 1
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "config.json").write_text(json.dumps(config))
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


def student_that_was_trained(directory: Path, by: str) -> Path:
    """With `wheels.json` beside its weights, which says that `by` ("student" or "policy") is to ask."""
    # To a question with a sentence before it, that student has a one-word answer: a wrong one, 42.
    student = student_that_asks(directory, "4")
    asks_with = json.loads((student / "config.json").read_text())["vocab_size"] - 1
    told = {
        "token": "<help>", "token_id": asks_with, "segment": 6, "levels": [0.1, 0.5], "held_out": [], "separator": "\n",
        "phrasings": ["Ask for at most {share} of the tokens."], "offsets": {"0.1": 0.2, "0.5": 0.0}, "by": by,
    }  # fmt: skip
    (student / "wheels.json").write_text(json.dumps(told))
    return student
