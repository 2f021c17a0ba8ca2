"""Beside TRL's GKD trainer: same pair, same rows in the same order, same optimizer and rates, same steps, off-policy.

    tw distill kd, forward KL   |   GKDTrainer, lmbda = 0 (the data's text), beta = 0 (forward KL)

TRL is no dependency of ours: `pip install trl` into an environment of its own, or
`pip install --target DIR --no-deps trl datasets dill multiprocess xxhash pandas` and PYTHONPATH=DIR.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.distill.material import bf16, translation_pair
from benchmarks.distill.measuring import distances, rows_of, translation_quality
from benchmarks.distill.sizes import Sizes
from benchmarks.distill.surroundings import surroundings
from benchmarks.distill.translation import configuration
from training.distill.batches import collate
from training.distill.config import DistillConfig
from training.distill.frame import learning_rate
from training.distill.models import load_model, load_tokenizer
from training.distill.pair import course, read_data, steps_of
from training.distill.run import distil

COLUMNS = {
    "KL": ("held.kl", 4), "NLL": ("held.nll", 4), "BLEU": ("test.bleu", 1), "chrF": ("test.chrf", 1),
    "steps": ("steps", 0), "tokens": ("tokens", 0), "CPU seconds": ("seconds", 0),
    "tokens/CPU s": ("tokens_per_second", 0),
}  # fmt: skip


def run(data: Path, work: Path, sizes: Sizes, seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Raises SystemExit where TRL is not there."""
    try:
        import trl  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise SystemExit(f"TRL is not installed. {(__doc__ or '').split('TRL is no')[1].strip()}") from None
    found: dict[str, Any] = {"tw distill kd": [], f"TRL {trl.__version__} GKDTrainer": []}
    for seed in range(seeds):
        pair = translation_pair(data, work, sizes, seed)
        for (name, results), train in zip(found.items(), (_ours, _theirs), strict=True):
            say(f"{name}, seed {seed}")
            out = work / "beside-trl" / f"{train.__name__.strip('_')}-{seed}"
            config = configuration({}, pair, out, sizes, seed)
            # Neither side validates on the way, so that seconds are those of learning; and both learn by AdamW, since
            # Trainer takes one optimizer.
            config = config.model_copy(
                update={
                    "data": config.data.model_copy(update={"validation": (), "validation_rows": 0}),
                    "training": config.training.model_copy(update={"optimizer": "adamw"}),
                }
            )
            told = train(config, pair)
            tokenizer = load_tokenizer(str(pair["student"]), "student")
            teacher = load_model(str(pair["teacher"]), "float32", "teacher").eval()
            student = load_model(str(out / "student"), "float32", "student").eval()
            held = rows_of(pair["files"]["test"], config, tokenizer, sizes.measured_rows)
            results.append(
                {
                    **told,
                    "tokens_per_second": told["tokens"] / told["seconds"],
                    "held": distances(student, teacher, held, config, len(tokenizer)),
                    "test": translation_quality(out / "student", pair["files"]["test"], sizes.test_rows),
                }
            )
    return found


def _ours(config: DistillConfig, _pair: dict[str, Any]) -> dict[str, float]:
    report = distil(config, "kd", surroundings("tw distill kd"), lambda _name: None)
    return {key: report["stages"]["kd"][key] for key in ("steps", "tokens", "seconds")}


def _theirs(config: DistillConfig, pair: dict[str, Any]) -> dict[str, float]:
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from torch.utils.data import SequentialSampler
    from trl.experimental.gkd import GKDConfig, GKDTrainer  # type: ignore[import-not-found, unused-ignore]

    data = read_data(config)
    source = course(config, data)
    steps, rows = steps_of(config, source, 1), config.training.rows
    student = load_model(str(pair["student"]), "float32", "student")
    teacher = load_model(str(pair["teacher"]), "float32", "teacher")
    tokens = 0

    def ordered() -> Iterator[dict[str, list[int]]]:
        for step in range(steps):
            for pack in source.batch(step, 0, 0, 1).packs:
                yield {"input_ids": list(pack[0].tokens), "answer_from": [pack[0].answer_from]}

    by_number = {row.tokens: row for row in data.rows}

    def collated(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        nonlocal tokens
        batch = collate([(by_number[tuple(one["input_ids"])],) for one in some], data.pad_id)
        tokens += int((batch.owners > 0).sum())
        return {
            "input_ids": batch.tokens,
            "attention_mask": (batch.owners > 0).long(),
            "labels": batch.tokens.masked_fill(~batch.learn, -100),
        }

    class InOrder(GKDTrainer):  # type: ignore[misc, unused-ignore]
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    training = config.training
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=training.learning_rate, betas=training.betas, eps=1e-8, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(training, min(step, steps - 1), steps) / training.learning_rate
    )
    arguments = GKDConfig(
        output_dir=str(config.out / "trl"), max_steps=steps, per_device_train_batch_size=rows, lmbda=0.0, beta=0.0,
        temperature=1.0, max_grad_norm=training.clip, bf16=bf16(), use_cpu=True, report_to=[], save_strategy="no",
        logging_steps=1_000_000, disable_tqdm=True, gradient_checkpointing=False, seed=config.seed,
        dataset_kwargs={"skip_prepare_dataset": True}, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = InOrder(
        model=student, teacher_model=teacher, args=arguments, data_collator=collated,
        train_dataset=Dataset.from_list(list(ordered())), processing_class=data.tokenizer,
        optimizers=(optimizer, schedule),
    )  # fmt: skip
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    trainer.model.save_pretrained(config.out / "student")
    data.tokenizer.save_pretrained(config.out / "student")
    return {"steps": steps, "tokens": tokens, "seconds": seconds}
