"""Loading a pair that fits, what lies between states and logits, and writing a student that others can load."""

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from training.distill.batches import Batch
from training.distill.errors import CannotDistill, DistillationFailed
from training.distill.losses.blocks import Head

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "auto": "auto"}


def load_model(name: str, dtype: str, role: str) -> Any:
    """A causal language model. Raises CannotDistill, with what transformers said."""
    _quiet()
    check_directory(name, role)
    try:
        config = AutoConfig.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, config=config, dtype=_DTYPES[dtype])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300]
        raise CannotDistill(f"{role}.path: {name!r} cannot be loaded as a causal language model ({said})") from None
    model.config.use_cache = False
    return model


def check_directory(name: str, role: str) -> None:
    """Raises CannotDistill where a path leads nowhere, which transformers would take for a name on a hub."""
    if name.startswith(("/", ".", "~")) and not (Path(name).expanduser() / "config.json").is_file():
        raise CannotDistill(f"{role}.path: {name} is no directory with a config.json")


def load_tokenizer(name: str, role: str) -> Any:
    check_directory(name, role)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CannotDistill(f"{role}.path: {name!r} has no tokenizer ({' '.join(str(error).split())[:300]})") from None
    if tokenizer.pad_token_id is None:
        # Padding is masked out everywhere, so any id will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def shared_vocabulary(student: Any, teacher: Any, student_rows: int, teacher_rows: int) -> int:
    """How many words, from id 0 on, mean the same on both sides.

    Equal tokenizers whose models are padded to different sizes are sliced to the real vocabulary; one tokenizer may go
    on where the other ends (added special tokens). Raises CannotDistill where a token has two meanings.
    """
    ours: dict[str, int] = student.get_vocab()
    theirs: dict[str, int] = teacher.get_vocab()
    by_id, their_by_id = {i: t for t, i in ours.items()}, {i: t for t, i in theirs.items()}
    shared = min(max(by_id, default=-1), max(their_by_id, default=-1)) + 1
    different = [i for i in range(shared) if by_id.get(i) != their_by_id.get(i)]
    if different:
        first = different[0]
        raise CannotDistill(
            f"the two vocabularies differ: {len(different)} of the first {shared} ids have another meaning (id {first} "
            f"is {by_id.get(first)!r} to the student and {their_by_id.get(first)!r} to the teacher). Probabilities are "
            "compared word by word, which needs one tokenizer: give the student the teacher's, or train it "
            "on the teacher's text instead"
        )
    return min(shared, student_rows, teacher_rows)


def head_of(model: Any, vocabulary: int | None = None) -> Head:
    """The head as parameters; `vocabulary` cuts off padding."""
    output = model.get_output_embeddings()
    config = model.config
    scale = 1.0
    if getattr(config, "logits_scaling", None):
        scale = 1.0 / float(config.logits_scaling)
    elif getattr(config, "logit_scale", None):
        scale = float(config.logit_scale)
    softcap = getattr(config, "final_logit_softcapping", None)
    rows = output.weight.shape[0]
    return Head(output.weight, getattr(output, "bias", None), min(vocabulary or rows, rows), scale, softcap)


def check_head(model: Any, role: str) -> None:
    """Raises CannotDistill where the logits are not what `head_of` makes of the states: the memory-saving losses would
    then compute something else."""
    device = next(model.parameters()).device
    tokens = torch.arange(4, device=device)[None] % model.config.get_text_config().vocab_size
    was = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=tokens).logits.float()
        ours = head_of(model).logits(model.base_model(input_ids=tokens).last_hidden_state)
    model.train(was)
    if logits.shape != ours.shape or not torch.allclose(logits, ours, rtol=2e-2, atol=2e-2):
        raise CannotDistill(
            f"{role}: the head of {model.config.model_type} is not a linear map with scale and soft-cap; not supported"
        )


def layers_of(model: Any) -> nn.ModuleList:
    """The decoder layers."""
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList)]
    wanted = model.config.get_text_config().num_hidden_layers
    found = next((m for m in lists if len(m) == wanted), None)
    if found is None:
        raise CannotDistill(f"the layers of {model.config.model_type} cannot be found; features need them")
    return found


@dataclass(frozen=True, slots=True)
class States:
    """`last` (B, T, width): what the head reads. `layers`: layer (from 1) -> its output, before any final norm."""

    last: Tensor
    layers: dict[int, Tensor]


def states(model: Any, batch: Batch, layers: tuple[int, ...] = ()) -> States:
    """Runs the model without its head."""
    caught: dict[int, Tensor] = {}
    hooks = []
    if layers:
        modules = layers_of(model)

        def keep(number: int) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                # Gradient checkpointing runs a layer again in the backward pass; the first output is the graph's.
                caught.setdefault(number, output[0] if isinstance(output, tuple) else output)

            return hook

        hooks = [modules[number - 1].register_forward_hook(keep(number)) for number in layers]
    try:
        last = model.base_model(
            input_ids=batch.tokens,
            attention_mask=batch.attention(model.config._attn_implementation),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return States(last, caught)


def save_activations(model: Any) -> None:
    """Layers run again in the backward pass instead of keeping what they computed."""
    if hasattr(model, "activation_checkpointing_enable"):  # newer transformers
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def weights_sha256(model: nn.Module) -> str:
    """Of names, types, shapes and bytes of all weights; tied ones count once."""
    found = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def export(
    model: Any,
    weights: dict[str, Tensor] | None,
    tokenizer: Any,
    directory: Path,
    dtype: str,
    extra: dict[str, Any] | None = None,
) -> None:
    """Writes what transformers and vLLM load: weights in safetensors, configuration, tokenizer. Appears whole or not at
    all; raises DistillationFailed where it cannot be written."""
    beside = directory.with_name(directory.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    config = model.config
    kept = config.use_cache
    try:
        config.use_cache = True
        for name, value in (extra or {}).items():
            setattr(config, name, value)
        target: Any = _DTYPES[dtype]
        found = dict(weights if weights is not None else model.state_dict())
        for name in _tied(model):
            # Stored once: a cast or gathered twin would look like a matrix of its own.
            found.pop(name, None)
        cast = {name: value.to(target) if value.is_floating_point() else value for name, value in found.items()}
        model.save_pretrained(beside, state_dict=cast, safe_serialization=True)
        tokenizer.save_pretrained(beside)
        _say_dtype(beside / "config.json", dtype)
        if directory.exists():
            old = directory.with_name(directory.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            os.replace(directory, old)
            os.replace(beside, directory)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(beside, directory)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise DistillationFailed(f"{directory}: cannot be written ({error})") from error
    finally:
        config.use_cache = kept


def _tied(model: Any) -> list[str]:
    """Names of weights that are another name's, and are made from it when the model is loaded."""
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return []
    return list(getattr(model, "_tied_weights_keys", None) or [])


def _say_dtype(path: Path, dtype: str) -> None:
    import json

    config = json.loads(path.read_text())
    config["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2) + "\n")


def _quiet() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("transformers").setLevel(logging.ERROR)
