"""Masked diffusion students: noise, sampler, targets of a round, and the whole way through the verb."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.training.distill.conftest import config_of, surroundings
from tests.training.distill.pairs import WORDS as TEXTS
from tests.training.distill.pairs import llama, settings, tokenizer
from training.distill.batches import collate
from training.distill.config import DiffusionConfig, Order
from training.distill.diffusion.base import BaseLesson
from training.distill.diffusion.model import Denoiser, marked
from training.distill.diffusion.sampler import gumbel_draw, revealed_at, sample, turns
from training.distill.errors import CannotDistill, Stopped
from training.distill.examples import Row
from training.distill.losses.diffusion import antithetic_times, base_loss, noised, step_divergence
from training.distill.through_time import (
    ThroughTimeLesson,
    distil_through_time,
    sampling_steps,
    targets,
    turns_of_ancestral,
)

SIZE, MASK = len(tokenizer()), 2


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def denoiser(seed: int = 1, **shape: Any) -> Denoiser:
    return Denoiser(llama(SIZE, seed=seed, **shape).eval(), MASK, SIZE)


def batch(count: int = 4, length: int = 10) -> Any:
    tokens = torch.randint(3, SIZE, (count, length), generator=chance(5))
    return collate([(Row(tuple(row.tolist()), 0, i),) for i, row in enumerate(tokens)], 0)


def test_times_are_spread_evenly() -> None:
    times = antithetic_times(8, 0.0, chance())
    assert sorted((times * 8).floor().int().tolist()) == list(range(8))
    assert (antithetic_times(100, 0.2, chance()) >= 0.2).all()


def test_noise_masks_with_probability_t_and_changes_nothing_else() -> None:
    tokens = torch.full((3, 4000), 7)
    z, masked = noised(tokens, torch.tensor([0.1, 0.5, 1.0]), MASK, chance())
    torch.testing.assert_close(masked.float().mean(-1), torch.tensor([0.1, 0.5, 1.0]), atol=0.03, rtol=0)
    assert (z[masked] == MASK).all()
    assert (z[~masked] == 7).all()


def test_a_uniform_model_has_a_bound_of_log_v_per_token() -> None:
    times = torch.full((20_000,), 0.25)
    masked = torch.rand(20_000, generator=chance()) < 0.25
    log_x = torch.full((int(masked.sum()), 8), -math.log(8))
    total = base_loss(log_x, torch.zeros(len(log_x), dtype=torch.long), times[masked]).sum() / 20_000
    assert total.item() == pytest.approx(math.log(8), rel=0.05)


def test_mask_is_never_predicted_and_every_place_sees_both_sides() -> None:
    one = denoiser()
    z = torch.tensor([[5, MASK, 6, MASK]])
    first = one.log_x(z, z == MASK)
    assert first.shape == (2, SIZE)
    assert (first[:, MASK] == float("-inf")).all()
    torch.testing.assert_close(first.exp().sum(-1), torch.ones(2))
    later = one.log_x(torch.tensor([[5, MASK, 9, MASK]]), z == MASK)
    assert (first[0, 3:] - later[0, 3:]).abs().max() > 1e-3


def test_places_are_told_apart_by_the_begin_token_alone() -> None:
    z = torch.full((1, 6), MASK)
    with torch.no_grad():
        without = denoiser().log_x(z, z == MASK)
        begun = replace(denoiser(), begin_id=1).log_x(z, z == MASK)
    torch.testing.assert_close(without[:1].expand(6, -1), without)
    # As many rows as places of the text, and no two of them alike.
    assert begun.shape == (6, SIZE)
    apart = (begun[:, None, 3:] - begun[None, :, 3:]).abs().amax(-1)
    assert (apart + torch.eye(6) > 1e-4).all()


def test_the_begin_token_is_one_more_token_in_front() -> None:
    z = torch.tensor([[5, MASK, 6, MASK]])
    with torch.no_grad():
        begun = replace(denoiser(), begin_id=7).log_x(z, z == MASK)
        longer = torch.tensor([[7, 5, MASK, 6, MASK]])
        torch.testing.assert_close(begun, denoiser().log_x(longer, longer == MASK))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_keep_their_digits_under_autocast(dtype: torch.dtype) -> None:
    one, z = denoiser(), torch.tensor([[5, MASK, 6, MASK]])
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = one.log_x(z, z == MASK)
    assert found.dtype == torch.float32
    # A head in bfloat16 would give logits of eight digits' precision only.
    assert not torch.equal(found.nan_to_num(neginf=0.0).bfloat16().float(), found.nan_to_num(neginf=0.0))
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2))


def test_gumbel_draws_follow_the_distribution() -> None:
    log_x = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).expand(20_000, 3)
    shares = torch.bincount(gumbel_draw(log_x, 1.0, chance()), minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.02, rtol=0)
    assert gumbel_draw(log_x[:5], 0.0, chance()).tolist() == [0] * 5


@pytest.mark.parametrize("order", ["ancestral", "dilated"])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_sampling_reveals_everything_keeps_the_prefix_and_repeats_with_the_seed(steps: int, order: Order) -> None:
    one = denoiser()
    prefix = torch.tensor([[7, 8], [9, 10]])
    found = sample(one, count=2, length=9, steps=steps, generator=chance(3), order=order, prefix=prefix)
    assert (found.tokens != MASK).all()
    assert found.tokens[:, :2].tolist() == prefix.tolist()
    assert (found.log_probabilities[:, :2] == 0).all()
    assert (found.log_probabilities[:, 2:] < 0).all()
    again = sample(one, count=2, length=9, steps=steps, generator=chance(3), order=order, prefix=prefix)
    assert torch.equal(again.tokens, found.tokens)


@pytest.mark.parametrize(("order", "error"), [("ancestral", 0.04), ("dilated", 1e-6)])
def test_a_step_reveals_the_share_it_should(monkeypatch: pytest.MonkeyPatch, order: Order, error: float) -> None:
    one, here, masked = denoiser(), [], []
    log_x = Denoiser.log_x

    def counted(self: Denoiser, z: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        here.append(float(where.float().mean()))
        masked.append(float((z == MASK).float().mean()))
        assert (z[where] == MASK).all()
        return log_x(self, z, where)

    monkeypatch.setattr(Denoiser, "log_x", counted)
    sample(one, count=200, length=12, steps=4, generator=chance(), order=order)
    assert here == pytest.approx([0.25] * 4, abs=error)
    assert masked == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=error)


def test_ancestral_steps_are_drawn_for_each_place_alike() -> None:
    at = revealed_at(500, 40, 5, "ancestral", chance())
    torch.testing.assert_close(torch.bincount(at.flatten()) / at.numel(), torch.full((5,), 0.2), atol=0.02, rtol=0)
    same = (at[:, :-1] == at[:, 1:]).float().mean()
    assert float(same) == pytest.approx(0.2, abs=0.02), "neighbours know nothing of each other"


def test_dilated_steps_lie_far_apart_and_fall_between_those_before() -> None:
    assert turns(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert [turns(steps).sort().values.tolist() for steps in (1, 5, 6)] == [list(range(n)) for n in (1, 5, 6)]
    for row in revealed_at(20, 40, 8, "dilated", chance()):
        for step in range(8):
            places = (row == step).nonzero().flatten()
            assert (places.diff() == 8).all()
            known = (row < step).nonzero().flatten()
            # From the second step on half of what lies between two known places, and never next to none.
            if step:
                assert int((places[:, None] - known[None]).abs().min(1).values.max()) <= 4
    assert len({tuple(row) for row in revealed_at(200, 40, 8, "dilated", chance()).tolist()}) == 8, (
        "the offset is drawn"
    )


@pytest.mark.parametrize("kind", ["reverse", "forward", "mse", "tvd"])
def test_step_divergences_are_zero_at_equality_and_finite_at_mask(kind: str) -> None:
    logits = torch.randn(3, 5, generator=chance())
    logits[:, MASK] = float("-inf")
    log_x = torch.log_softmax(logits, -1)
    torch.testing.assert_close(step_divergence(log_x, log_x, kind), torch.zeros(3), atol=1e-6, rtol=0)
    moving = torch.randn(3, 5, generator=chance(1)).requires_grad_()
    masked = moving.masked_fill(torch.arange(5) == MASK, float("-inf"))
    step_divergence(torch.log_softmax(masked, -1), log_x, kind).sum().backward()
    assert torch.isfinite(moving.grad).all()


def test_reverse_is_kl_from_the_student() -> None:
    student, aim = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert step_divergence(student, aim, "reverse").item() == pytest.approx(by_hand)


def test_one_teacher_step_is_the_teacher_itself() -> None:
    one = denoiser()
    z, masked = noised(batch().tokens, torch.full((4,), 0.6), MASK, chance())
    with torch.no_grad():
        found = targets(one, z, torch.zeros_like(z), 1, chance())
        torch.testing.assert_close(found, one.log_x(z, masked))


def test_two_teacher_steps_keep_what_was_revealed_first_and_renew_the_rest() -> None:
    one = denoiser()
    z, masked = noised(batch().tokens, torch.full((4,), 0.6), MASK, chance())
    revealed = torch.randint(3, z.shape, generator=chance(2))
    with torch.no_grad():
        first = one.log_x(z, masked)
        found = targets(one, z, revealed, 2, chance(1))
    same = (found - first).abs().nan_to_num(0.0).max(-1).values < 1e-6
    assert torch.equal(same, (revealed == 0)[masked]), "what comes later sees what was revealed first"
    with torch.no_grad():
        whole = targets(one, z, torch.zeros_like(z), 2, chance(1))
    torch.testing.assert_close(whole, first)


def test_a_masked_place_s_turn_is_uniform_in_the_time_that_is_left() -> None:
    found = turns_of_ancestral(torch.tensor([0.6, 0.05]), 20_000, 0.1, chance())
    torch.testing.assert_close(torch.bincount(found[0]) / 20_000, torch.full((6,), 1 / 6), atol=0.02, rtol=0)
    assert found[1].max() == 0, "what ends within the step is revealed by it"


@pytest.mark.parametrize(("from_steps", "done", "steps"), [(70, 1, 17), (49, 0, 24), (8, 2, 1), (3, 0, 1)])
def test_a_dilated_round_is_made_for_the_steps_that_its_student_says(from_steps: int, done: int, steps: int) -> None:
    config = DiffusionConfig(from_steps=from_steps, substeps=2, order="dilated")
    lesson = ThroughTimeLesson(denoiser(), denoiser(), config, dt=2**done / from_steps, seed=0)
    z, revealed = lesson._noised(torch.full((600, 48), 7), MASK, chance())
    assert sampling_steps(config, done + 1) == steps
    # What one step reveals, of texts of which nothing is known yet.
    first = ((revealed < 2) & (z == MASK))[(z == MASK).all(1)]
    assert float(first.float().mean()) == pytest.approx(1 / steps, abs=0.02)


def test_a_dilated_round_sees_what_a_dilated_sampler_sees() -> None:
    """One of four steps, which the teacher takes in two: what was revealed before is there, and sub-steps divide what
    the step reveals."""
    config = DiffusionConfig(from_steps=8, substeps=2, order="dilated")
    lesson = ThroughTimeLesson(denoiser(), denoiser(), config, dt=1 / 8, seed=0)
    tokens = torch.full((400, 16), 7)
    z, revealed = lesson._noised(tokens, MASK, chance())
    masked = z == MASK
    assert torch.equal(masked, revealed >= 0)
    assert sorted(set(masked.sum(1).tolist())) == [4, 8, 12, 16]
    shares = torch.bincount(masked.sum(1)) / 400
    torch.testing.assert_close(shares[4::4], torch.full((4,), 0.25), atol=0.05, rtol=0)
    at = {tuple(row) for row in revealed_at(200, 16, 4, "dilated", chance()).tolist()}
    for row, turn in zip(masked, revealed, strict=True):
        # Some sampler's texts before one of its steps, and that step is what two sub-steps share evenly.
        step = 4 - int(row.sum()) // 4
        mine = [one for one in at if all((one[i] >= step) == bool(row[i]) for i in range(16))]
        now = (turn == 0) | (turn == 1)
        assert any(all((one[i] == step) == bool(now[i]) for i in range(16)) for one in mine)
        assert int((turn == 0).sum()) == int((turn == 1).sum()) == 2
        assert ((turn == 0).nonzero().flatten().diff() == 8).all()


def test_a_student_equal_to_a_one_step_teacher_has_no_loss() -> None:
    student, teacher = denoiser(), denoiser()
    lesson = ThroughTimeLesson(student, teacher, DiffusionConfig(substeps=1), dt=0.1, seed=0)
    out = lesson(batch(), 0)
    out["loss"].backward()
    assert out["loss"].item() == pytest.approx(0.0, abs=1e-4)
    assert max(float(p.grad.abs().max()) for p in student.model.parameters() if p.grad is not None) < 1e-3


def test_the_base_loss_falls() -> None:
    one = denoiser()
    lesson, some = BaseLesson(one, smallest_time=1e-3, seed=0), batch(8, 6)
    optimizer = torch.optim.AdamW(lesson.parameters(), lr=1e-2)
    values = []
    for step in range(40):
        value = lesson(some, step)["loss"] / lesson.weight(some)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert sum(values[-5:]) < 0.6 * sum(values[:5])


def test_the_average_follows_the_student() -> None:
    student = denoiser()
    lesson = ThroughTimeLesson(student, denoiser(), DiffusionConfig(ema=0.5), dt=0.1, seed=0)
    before = lesson.average.model.norm.weight.clone()
    with torch.no_grad():
        student.model.model.norm.weight.add_(1.0)
    lesson.update_average(0)
    torch.testing.assert_close(lesson.average.model.norm.weight, before + 0.5)


# --- the whole way ----------------------------------------------------------------------------------------------------


def run(folder: Path, stop_at: int | None = None, **changes: Any) -> dict[str, Any]:
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    diffusion = {"length": 12, "base_steps": 6, "from_steps": 8, "rounds": 2, "steps_per_round": 4} | changes.pop(
        "diffusion", {}
    )
    value = settings(folder, diffusion=diffusion, **changes)
    value.pop("teacher")
    value["data"]["train"] = [str(folder / "text.jsonl")]
    value["training"].pop("steps")
    return distil_through_time(config_of(value), surroundings(stop_at), lambda _name: None)


def test_rounds_halve_the_steps_and_every_student_says_how_it_is_read(folder: Path) -> None:
    report = run(folder)
    assert list(report["stages"]) == ["base", "round 1", "round 2"]
    assert report["sampling_steps"] == 2
    marks = {
        name: AutoConfig.from_pretrained(folder / "out" / name).masked_diffusion
        for name in ("base-model", "student-of-round-1", "student")
    }
    assert marks == {
        name: {"mask_token_id": MASK, "length": 12, "steps": steps, "order": "dilated", "begin_token_id": 1}
        for name, steps in (("base-model", 8), ("student-of-round-1", 4), ("student", 2))
    }
    model = AutoModelForCausalLM.from_pretrained(folder / "out" / "student")
    found = sample(marked(model, SIZE), count=3, length=12, steps=2, generator=chance())
    assert (found.tokens != MASK).all()


def test_without_rounds_the_base_is_the_student(folder: Path) -> None:
    report = run(folder, diffusion={"rounds": 0, "from_steps": 4})
    assert list(report["stages"]) == ["base"]
    assert report["sampling_steps"] == 4
    mark = AutoConfig.from_pretrained(folder / "out" / "student").masked_diffusion
    assert (mark["steps"], mark["order"]) == (4, "dilated")
    assert not (folder / "out" / "base-model").exists()


def test_an_exported_student_is_distilled_further_without_base_training(folder: Path) -> None:
    run(folder)
    again = run(
        folder, out=str(folder / "more"), student={"path": str(folder / "out/student")},
        diffusion={"base_steps": 0, "from_steps": 2, "rounds": 1},
    )  # fmt: skip
    assert list(again["stages"]) == ["round 1"]


def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(folder: Path) -> None:
    run(folder, out=str(folder / "whole"))
    stops = 0
    for stop_at in (3, 5, 3, 6, None):
        try:
            run(folder, stop_at, out=str(folder / "parts"))
        except Stopped:
            stops += 1
    assert stops >= 3
    found = [load_file(folder / name / "student/model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"diffusion": {"base_steps": 0}}, "no masked diffusion model"),
        ({"diffusion": {"rounds": 4}}, "leaves less than one"),
        ({"diffusion": {"base_steps": 0, "rounds": 0}}, "neither base_steps nor rounds"),
        ({"diffusion": {"length": 64}}, "knows 64 positions"),
        ({"diffusion": {"begin_token": "<no>"}}, "not in the student's tokenizer"),
        ({"data": {"text_column": "other"}}, "needs"),
    ],
)
def test_what_cannot_be_is_told(folder: Path, changes: dict[str, Any], about: str) -> None:
    with pytest.raises(CannotDistill, match=about):
        run(folder, **changes)


def test_steps_of_a_round() -> None:
    config = DiffusionConfig(from_steps=128, substeps=2)
    assert [sampling_steps(config, done) for done in range(4)] == [128, 64, 32, 16]
