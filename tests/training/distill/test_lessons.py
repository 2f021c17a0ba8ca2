"""One method's loss on one batch, through real (tiny) models."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.distill.conftest import config_of
from tests.training.distill.pairs import llama, save_model, settings, tokenizer
from training.distill.batches import collate
from training.distill.cached import CachedTeacher
from training.distill.config import WarmupConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Row
from training.distill.kd import DistillationLesson
from training.distill.models import (
    check_head,
    head_of,
    load_model,
    load_tokenizer,
    save_activations,
    shared_vocabulary,
)
from training.distill.pair import check_tokens
from training.distill.teachers import LocalTeacher
from training.distill.warmup import WarmupLesson
from training.distill.writing import corrected, improbable, written

WORDS = tokenizer()
SIZE = len(WORDS)
TERMS: dict[str, dict[str, Any]] = {
    "kd": {},
    "reverse": {"loss": {"kind": "reverse", "temperature": 2.0}},
    "js": {"loss": {"kind": "js", "skew": 0.5}},
    "skew": {"loss": {"kind": "skew"}},
    "adaptive": {"loss": {"kind": "adaptive"}},
    "by words": {"training": {"vocabulary_at_once": 50}},
    "by tokens": {"training": {"tokens_at_once": 3}},
    "ranking": {"ranking": {}},
    "ranking, dynamic": {"ranking": {"dynamic": True, "confidence": True}},
    "features": {"features": {"kind": "nd", "projection": "orthogonal"}},
    "features of all layers": {
        "features": {"kind": "cos-norm", "projection": "orthogonal", "layers": [[1, 1], [-1, -1]]}
    },
    "features of prompts too": {"features": {"kind": "cos", "projection": "orthogonal", "places": "all"}},
    "mse": {"features": {"kind": "mse", "projection": "orthogonal"}},
    "everything": {"ranking": {}, "features": {"projection": "orthogonal"}, "loss": {"kind": "reverse"}},
}


def features_of(name: str) -> str:
    features = TERMS[name].get("features")
    return "" if features is None else str(features.get("kind", "nd"))


def rows(*lengths: int) -> list[Row]:
    generator = torch.Generator().manual_seed(4)
    return [
        Row(tuple(torch.randint(3, SIZE, (n,), generator=generator).tolist()), max(1, n // 2), i)
        for i, n in enumerate(lengths)
    ]


def lesson(sections: dict[str, Any], *, student: Any = None, teacher: Any = None, **more: Any) -> DistillationLesson:
    config = config_of(settings(Path("nowhere"), **sections))
    if "cached" not in more:
        more["teacher"] = teacher or llama(SIZE, seed=2)
    return DistillationLesson(
        student or llama(SIZE, seed=1, hidden=16, layers=2), config, vocabulary=SIZE, pad_id=0, eos=1, **more
    )


def value_and_gradient(one: DistillationLesson, *batches: Any) -> tuple[float, torch.Tensor]:
    one.zero_grad()
    total = sum(one(batch, 0)["loss"] for batch in batches)
    total.backward()
    return float(total.detach()), torch.cat([p.grad.flatten() for p in one.student.parameters() if p.grad is not None])


@pytest.mark.parametrize("terms", TERMS)
def test_a_student_equal_to_its_teacher_has_no_loss(terms: str) -> None:
    same = llama(SIZE, seed=2)
    one = lesson(TERMS[terms], student=same, teacher=llama(SIZE, seed=2).eval())
    value, gradient = value_and_gradient(one, collate([(row,) for row in rows(7, 4)], 0))
    assert value == pytest.approx(0.0, abs=2e-4)
    if features_of(terms) != "nd":
        # nd has an edge at equality: shorter states cost, longer ones along the same direction do not.
        assert gradient.abs().max() < 2e-3


@pytest.mark.parametrize("terms", TERMS)
def test_left_and_right_padding_one_row_and_many_give_the_same_loss_and_gradient(terms: str) -> None:
    some = rows(9, 4, 6, 2)
    one = lesson(TERMS[terms])
    wanted = value_and_gradient(one, *[collate([(row,)], 0) for row in some])
    assert wanted[0] > 0.01
    for batches in (
        [collate([(row,) for row in some], 0)],
        [collate([(row,) for row in some], 0, "left")],
        [collate([some], 0)],
        [collate([some[:1], some[1:]], 0, "left")],
    ):
        found = value_and_gradient(one, *batches)
        assert found[0] == pytest.approx(wanted[0], rel=1e-4)
        torch.testing.assert_close(found[1], wanted[1], atol=2e-4, rtol=1e-3)


def test_a_one_token_answer_teaches_one_token() -> None:
    (row,) = rows(5)
    single = Row(row.tokens, 4, 0)
    one = lesson({})
    batch = collate([(single,)], 0)
    assert one.weight(batch) == 1.0
    value, gradient = value_and_gradient(one, batch)
    assert value > 0
    assert gradient.abs().max() > 0


def test_gradient_checkpointing_changes_no_gradient() -> None:
    sections = {"features": {"layers": [[1, 1], [2, 2]]}, "ranking": {}}
    batch = collate([(row,) for row in rows(9, 4)], 0)
    plain = lesson(sections)
    wanted = value_and_gradient(plain, batch)
    saving = lesson(sections)
    save_activations(saving.student)
    saving.train()
    found = value_and_gradient(saving, batch)
    assert found[0] == pytest.approx(wanted[0])
    torch.testing.assert_close(found[1], wanted[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("terms", TERMS)
def test_bfloat16_gives_finite_losses_and_gradients(terms: str) -> None:
    one = lesson(TERMS[terms])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = one(collate([(row,) for row in rows(9, 4)], 0), 0)
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)


def test_padded_vocabularies_of_one_tokenizer_are_sliced() -> None:
    some = collate([(row,) for row in rows(9, 4)], 0)
    padded = llama(SIZE + 40, seed=2)
    with torch.no_grad():
        padded.get_output_embeddings().weight[SIZE:] = 3.0
    plain = llama(SIZE, seed=2)
    plain.load_state_dict(
        {n: v[:SIZE] if "embed" in n or "lm_head" in n else v for n, v in padded.state_dict().items()}
    )
    wanted = value_and_gradient(lesson({}, teacher=plain), some)[0]
    assert value_and_gradient(lesson({}, teacher=padded), some)[0] == pytest.approx(wanted)


class Words:
    """A tokenizer as far as `shared_vocabulary` looks at it."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def get_vocab(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self._names)}


def test_vocabularies_that_differ_are_refused_and_longer_ones_shared() -> None:
    more = tokenizer(extra=("<help>",))
    assert shared_vocabulary(more, WORDS, SIZE + 64, SIZE) == SIZE
    assert shared_vocabulary(WORDS, WORDS, SIZE + 64, SIZE + 128) == SIZE
    with pytest.raises(CannotDistill, match=r"the two vocabularies differ: .* ids have another meaning"):
        shared_vocabulary(Words("a", "b", "c"), Words("a", "c", "b"), 3, 3)
    with pytest.raises(CannotDistill, match="'<help>'"):
        check_tokens([Row((3, SIZE), 1, 0)], SIZE, more)


def test_the_head_is_checked_and_models_that_are_none_are_told(tmp_path: Path) -> None:
    check_head(llama(SIZE), "student")
    with pytest.raises(CannotDistill, match=r"student\.path: .* is no directory with a config\.json"):
        load_model(str(tmp_path), "float32", "student")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CannotDistill, match=r"student\.path: .* cannot be loaded"):
        load_model(str(tmp_path), "float32", "student")
    with pytest.raises(CannotDistill, match=r"teacher\.path: .* has no tokenizer"):
        load_tokenizer(str(tmp_path), "teacher")


def test_what_gemma_and_granite_do_to_their_logits_is_known() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

    shape = {
        "vocab_size": SIZE, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    for model in (
        Gemma2ForCausalLM(Gemma2Config(**shape, final_logit_softcapping=5.0, initializer_range=1.0)),
        GraniteForCausalLM(GraniteConfig(**{**shape, "logits_scaling": 4.0})),
    ):
        check_head(model, "student")
        tokens = torch.arange(3, 9)[None]
        ours = head_of(model).logits(model.base_model(tokens).last_hidden_state)
        torch.testing.assert_close(ours, model(tokens).logits.float())


# --- cached teacher ---------------------------------------------------------------------------------------------------


def cached(teacher: Any, some: list[Row], k: int) -> CachedTeacher:
    found = LocalTeacher(teacher, SIZE, 0, 2, 5).top_k(some, k)
    return CachedTeacher(torch.cat([ids for ids, _ in found]), torch.cat([values for _, values in found]), some)


def test_a_cache_of_nearly_all_words_gives_the_loss_of_the_teacher_itself() -> None:
    teacher, some = llama(SIZE, seed=2).eval(), rows(9, 4, 6)
    batch = collate([(row,) for row in reversed(some)], 0, "left")
    wanted = value_and_gradient(lesson({}, teacher=teacher), batch)
    sections = {"teacher": {"top_k": SIZE - 1, "cache": "nowhere"}}
    found = value_and_gradient(lesson(sections, cached=cached(teacher, some, SIZE - 1)), batch)
    assert found[0] == pytest.approx(wanted[0], rel=1e-3)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-3, rtol=1e-2)


def test_cached_log_probabilities_find_their_tokens_in_packs() -> None:
    teacher, some = llama(SIZE, seed=2).eval(), rows(9, 4, 6)
    store = cached(teacher, some, 3)
    one = collate([[some[2], some[0]], [some[1]]], 0)
    ids, values = store.look_up(one, torch.device("cpu"))
    expected = [LocalTeacher(teacher, SIZE, 0, 2, 5).top_k([some[i]], 3)[0] for i in (2, 0, 1)]
    torch.testing.assert_close(ids, torch.cat([i.long() for i, _ in expected]))
    torch.testing.assert_close(values, torch.cat([v for _, v in expected]))


# --- writing and warm-up ----------------------------------------------------------------------------------------------


def test_writing_in_a_batch_writes_what_each_would_alone_and_what_transformers_writes() -> None:
    model = llama(SIZE, seed=1).eval()
    prompts = [row.tokens for row in rows(9, 4, 6)]
    generator = torch.Generator().manual_seed(0)

    def greedy(some: list[tuple[int, ...]]) -> list[list[int]]:
        limits = [5] * len(some)
        return written(
            model, some, limits=limits, eos=None, pad_id=0, vocabulary=SIZE, temperature=0.0, generator=generator
        )

    together = greedy(prompts)
    assert together == [greedy([prompt])[0] for prompt in prompts]
    theirs = model.generate(
        torch.tensor([prompts[0]]), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )
    assert theirs[0, len(prompts[0]) :].tolist() == together[0]


def test_writing_stops_at_the_end_token_and_at_the_limit() -> None:
    model = llama(SIZE, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    prompts = [row.tokens for row in rows(5, 4)]
    free = written(
        model, prompts, limits=[6, 3], eos=None, pad_id=0, vocabulary=SIZE, temperature=0.0, generator=generator
    )
    assert [len(answer) for answer in free] == [6, 3]
    stopped = written(
        model, prompts, limits=[6, 3], eos=free[0][2], pad_id=0, vocabulary=SIZE, temperature=0.0, generator=generator
    )
    assert stopped[0] == free[0][: free[0].index(free[0][2]) + 1]


def test_a_token_is_improbable_outside_of_the_top_k_or_below_the_threshold() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]] * 3))
    tokens = torch.tensor([1, 2, 3])
    assert improbable(logits, tokens, WarmupConfig(top_k=2)).tolist() == [False, True, True]
    assert improbable(logits, tokens, WarmupConfig(threshold=0.1)).tolist() == [False, False, True]


def test_a_teacher_equal_to_the_student_corrects_nothing_that_it_would_write_itself() -> None:
    model = llama(SIZE, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    prompts = [row.tokens for row in rows(5, 7)]
    found = corrected(
        model, llama(SIZE, seed=1).eval(), prompts, WarmupConfig(top_k=1, temperature=1e-6),
        limits=[6, 6], eos=None, pad_id=0, vocabulary=SIZE, generator=generator,
    )  # fmt: skip
    assert [(text.first, text.corrections) for text in found] == [(None, 0), (None, 0)]


def test_a_corrected_text_lies_in_the_teachers_top_k_and_shares_all_before_the_first_correction() -> None:
    student, teacher = llama(SIZE, seed=1).eval(), llama(SIZE, seed=2).eval()
    (prompt,) = [row.tokens for row in rows(5)]
    (text,) = corrected(
        student, teacher, [prompt], WarmupConfig(top_k=3),
        limits=[8], eos=None, pad_id=0, vocabulary=SIZE, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    logits = teacher(torch.tensor([[*prompt, *text.text]])).logits[0, len(prompt) - 1 : -1]
    inside = (logits.topk(3, -1).indices == torch.tensor(text.text)[:, None]).any(-1)
    assert inside.all()
    assert text.first is not None
    assert text.refused != text.text[text.first]


def test_warm_up_starts_at_log_two_and_prefers_the_chosen_after_a_few_steps() -> None:
    student = llama(SIZE, seed=1)
    one = WarmupLesson(student, WarmupConfig(imitation=0.0, beta=1.0), SIZE, 100)
    chosen, rejected = rows(8, 8)
    batch = collate([(Row(chosen.tokens, 4, 0),), (Row(rejected.tokens, 4, 1),)], 0)
    one.remember([batch], torch.device("cpu"))
    assert one.weight(batch) == 1.0
    assert one(batch, 0)["loss"].item() == pytest.approx(0.6931, abs=1e-3)
    optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
    for step in range(5):
        out = one(batch, step)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    assert out["chosen_gain"] > out["rejected_gain"]


def test_models_that_are_saved_padded_load_with_their_tokenizers(tmp_path: Path) -> None:
    save_model(tmp_path / "m", padded_to=SIZE + 9)
    model, words = load_model(str(tmp_path / "m"), "float32", "student"), load_tokenizer(str(tmp_path / "m"), "student")
    assert (head_of(model, SIZE).vocabulary, words.pad_token_id, len(words)) == (SIZE, 0, SIZE)
