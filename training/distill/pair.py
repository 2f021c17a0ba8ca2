"""What every method starts from: tokenizer, rows, and two models that fit each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.distill.batches import Batch, Course, collate
from training.distill.cached import CachedTeacher, TopKSource, open_cache
from training.distill.config import DistillConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Counted, Row, packed, read_rows, split_off
from training.distill.models import check_head, load_model, load_tokenizer, parameters, shared_vocabulary
from training.distill.teachers import LocalTeacher, VllmTeacher

# On a CPU, scores of so few places are made sooner than a fused kernel has looked at its mask.
SHORT = 256


@dataclass(frozen=True, slots=True)
class Data:
    """`train`: rows as they are put into batches; `validation`: whole batches."""

    tokenizer: Any
    rows: list[Row]
    validation_rows: list[Row]
    counted: Counted
    validation_counted: Counted | None

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def eos(self) -> int | None:
        return None if self.tokenizer.eos_token_id is None else int(self.tokenizer.eos_token_id)

    def as_dict(self) -> dict[str, Any]:
        return {
            "train": self.counted.as_dict() | {"used_rows": len(self.rows)},
            "validation": {
                "rows": len(self.validation_rows),
                "from": "its own files" if self.validation_counted else "taken off the training rows",
                **({} if self.validation_counted is None else {"counted": self.validation_counted.as_dict()}),
            },
        }


def read_data(config: DistillConfig, *, length: int | None = None) -> Data:
    """Raises CannotDistill for files that cannot be read or hold nothing usable."""
    tokenizer = load_tokenizer(config.student.path, "student")
    rows, counted = read_rows(config.data.train, config.data, tokenizer, length=length)
    validation: list[Row] = []
    validation_counted = None
    if config.data.validation:
        validation, validation_counted = read_rows(config.data.validation, config.data, tokenizer, length=length)
        validation = validation[: config.data.validation_rows] if config.data.validation_rows else []
    else:
        rows, validation = split_off(rows, config.data.validation_rows)
    return Data(tokenizer, rows, validation, counted, validation_counted)


def course(config: DistillConfig, data: Data, *, seed: int | None = None) -> Course:
    packs: Sequence[Sequence[Row]] = (
        packed(data.rows, config.data.context) if config.data.packing else [(row,) for row in data.rows]
    )
    training = config.training
    return Course(
        packs,
        rows=training.rows,
        accumulate=training.accumulate,
        seed=config.seed if seed is None else seed,
        pad_id=data.pad_id,
        padding=config.data.padding,
        by_length=training.group_by_length,
    )


def validation_batches(config: DistillConfig, data: Data) -> list[Batch]:
    """Rows of like length together, since nothing here depends on the order."""
    rows = sorted(data.validation_rows, key=lambda row: len(row.tokens))
    size = config.training.rows
    return [
        collate([(row,) for row in rows[start : start + size]], data.pad_id, config.data.padding)
        for start in range(0, len(rows), size)
    ]


def steps_of(config: DistillConfig, source: Course, world: int) -> int:
    return config.training.steps or source.steps(config.training.epochs or 1.0, world)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models on their device; `teacher` is None where its log-probabilities are cached."""

    student: Any
    teacher: Any
    vocabulary: int
    cached: CachedTeacher | None
    cached_validation: CachedTeacher | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "student_parameters": parameters(self.student),
            "teacher_parameters": None if self.teacher is None else parameters(self.teacher),
            "vocabulary": self.vocabulary,
        }


def load_pair(
    config: DistillConfig, data: Data, device: torch.device, tick: Callable[[str, int, int], None], *, main: bool = True
) -> Pair:
    """Raises CannotDistill where the two do not fit each other or the data does not fit them."""
    if config.teacher is None:
        raise CannotDistill("teacher: missing")
    student = load_model(config.student.path, config.student.dtype, "student").to(device)
    check_head(student, "student")
    check_context(student, config.data.context, "student")
    rows = int(student.get_output_embeddings().weight.shape[0])
    teacher: Any = None
    if config.teacher.path is not None:
        teacher_tokenizer = load_tokenizer(config.teacher.path, "teacher")
        teacher = (
            load_model(config.teacher.path, config.teacher.dtype, "teacher").to(device).eval().requires_grad_(False)
        )
        check_head(teacher, "teacher")
        check_context(teacher, config.data.context, "teacher")
        teacher_rows = int(teacher.get_output_embeddings().weight.shape[0])
        vocabulary = shared_vocabulary(data.tokenizer, teacher_tokenizer, rows, teacher_rows)
    else:
        vocabulary = min(rows, max(data.tokenizer.get_vocab().values()) + 1)
    for model in (student, teacher):
        if model is not None and device.type == "cpu" and config.data.context <= SHORT:
            model.set_attn_implementation("eager")
    check_tokens([*data.rows, *data.validation_rows], vocabulary, data.tokenizer)
    if config.teacher.cache is None:
        return Pair(student, teacher, vocabulary, None, None)
    assert config.teacher.top_k is not None
    source: TopKSource
    if teacher is not None:
        source = LocalTeacher(teacher, vocabulary, data.pad_id, config.training.rows, config.training.tokens_at_once)
    else:
        assert config.teacher.url is not None
        source = VllmTeacher(config.teacher.url, config.teacher.model, vocabulary, config.teacher.key_env)
    caches: list[CachedTeacher | None] = []
    for name, some in (("train", data.rows), ("validation", data.validation_rows)):
        if not some:
            caches.append(None)
            continue
        folder = config.teacher.cache / name
        if main:
            open_cache(folder, some, config.teacher.top_k, source, lambda done, of: tick("teacher", done, of))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        caches.append(open_cache(folder, some, config.teacher.top_k, source, lambda _done, _of: None))
    return Pair(student, None, vocabulary, caches[0], caches[1])


def check_context(model: Any, context: int, role: str) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and context > limit:
        raise CannotDistill(f"data.context: {context} tokens, and the {role} knows {limit} positions")


def check_tokens(rows: Sequence[Row], vocabulary: int, tokenizer: Any) -> None:
    """Raises CannotDistill where a row holds a token that one of the two models does not know."""
    for row in rows:
        worst = max(row.tokens)
        if worst >= vocabulary:
            word = tokenizer.convert_ids_to_tokens(worst)
            raise CannotDistill(
                f"data: row {row.number} holds token {worst} {word!r}, which only one of the models knows (they share "
                f"the first {vocabulary}); leave it out of the texts"
            )
