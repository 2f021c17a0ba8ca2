"""The teacher's remembered states stand in for the teacher, and nothing else does."""

import pytest

pytest.importorskip("torch")

import torch

from benchmarks.distill.remembered import in_place_of, remembered
from tests.training.distill.pairs import llama
from training.distill import kd
from training.distill.batches import collate
from training.distill.examples import Row
from training.distill.models import states


def rows():
    generator = torch.Generator().manual_seed(4)
    return [
        Row(tuple(torch.randint(3, 320, (n,), generator=generator).tolist()), n // 2, i)
        for i, n in enumerate((9, 4, 6, 12))
    ]


def test_remembered_states_are_the_teachers_in_any_order_and_are_made_once(tmp_path):
    teacher, some = llama(320, seed=2, layers=2).eval().requires_grad_(False), rows()
    memory = remembered(teacher, some, tmp_path / "kept.safetensors", layers=(1, 2), bf16=False)
    stamp = (tmp_path / "kept.safetensors").stat().st_mtime_ns
    again = remembered(teacher, some, tmp_path / "kept.safetensors", layers=(1, 2), bf16=False)
    assert (tmp_path / "kept.safetensors").stat().st_mtime_ns == stamp
    assert again.seconds_per_token == memory.seconds_per_token > 0
    batch = collate([(some[3],), (some[0],)], 0)
    found, wanted = memory.look_up(batch, (2,)), states(teacher, batch, (2,))
    place = batch.predicting()
    torch.testing.assert_close(found.last[:, :-1][place], wanted.last[:, :-1][place], atol=0.02, rtol=0.01)
    every = batch.owners > 0
    torch.testing.assert_close(found.layers[2][every], wanted.layers[2][every], atol=0.02, rtol=0.01)
    # Other rows than those kept have states of their own.
    remembered(teacher, some[:2], tmp_path / "kept.safetensors", layers=(1, 2), bf16=False)
    assert (tmp_path / "kept.safetensors").stat().st_mtime_ns != stamp


def test_what_is_not_known_is_asked_of_the_teacher_and_the_student_is_never_replaced(tmp_path):
    teacher, some = llama(320, seed=2, layers=2).eval().requires_grad_(False), rows()
    student = llama(320, seed=1, layers=2).eval()
    memory = remembered(teacher, some[:3], tmp_path / "kept.safetensors", layers=(2,), bf16=False)
    known, unknown = collate([(some[0],)], 0), collate([(some[3],)], 0)
    assert memory.look_up(unknown, ()) is None
    assert memory.look_up(known, (1,)) is None
    with in_place_of(memory, None):
        torch.testing.assert_close(kd.states(teacher, unknown).last, states(teacher, unknown).last)
        torch.testing.assert_close(kd.states(student, known).last, states(student, known).last)
        # Only the places that predict are filled in, of the last states.
        assert kd.states(teacher, known).last[0, 0].abs().sum() == 0
    assert kd.states is states
