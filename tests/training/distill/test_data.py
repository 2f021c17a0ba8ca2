"""Rows, masks, packing and padding: that what is learned is what was meant to be learned."""

import json
from pathlib import Path

import pytest
import torch

from tests.training.distill.pairs import llama, tokenizer
from training.distill.batches import Batch, Course, collate
from training.distill.config import DataConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Row, packed, read_rows, split_off
from training.distill.models import states

WORDS = tokenizer()


def rows_of(folder: Path, records: list[dict], **settings) -> tuple[list[Row], dict]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows, counted = read_rows([file], DataConfig(train=(file,), **settings), WORDS)
    return rows, counted.as_dict()


def refusal(folder: Path, text: str, **settings) -> str:
    file = folder / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(CannotDistill) as caught:
        read_rows([file], DataConfig(train=(file,), **settings), WORDS)
    return str(caught.value).replace(str(file), "FILE")


def test_the_answer_and_its_end_are_learned_and_the_prompt_is_not(tmp_path: Path) -> None:
    (row,), _ = rows_of(tmp_path, [{"prompt": "1 and 1 make", "answer": " 2."}])
    assert WORDS.decode(row.prompt) == "1 and 1 make"
    assert WORDS.decode(row.answer) == " 2.<|end|>"
    batch = collate([(row,)], 0)
    assert batch.targets().tolist() == list(row.answer)
    # The place before an answer token predicts it: neither shifted nor one late.
    places = batch.predicting()[0].nonzero().flatten().tolist()
    assert [row.tokens[place + 1] for place in places] == list(row.answer)


def test_a_one_token_answer_is_learned(tmp_path: Path) -> None:
    (row,), _ = rows_of(tmp_path, [{"prompt": "1 and 1 make", "answer": ""}])
    assert collate([(row,), (row,)], 0).targets().tolist() == [WORDS.eos_token_id] * 2


def test_messages_go_through_the_chat_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "1 and 1"}]
    (row,), _ = rows_of(tmp_path, [{"messages": messages}])
    assert WORDS.decode(row.prompt) == "user: hello assistant: "


def test_text_is_split_into_pieces_of_the_context(tmp_path: Path) -> None:
    rows, counted = rows_of(tmp_path, [{"text": "1 and 2 make 3. " * 20}], context=16)
    assert {len(row.tokens) for row in rows[:-1]} == {16}
    assert (counted["too_long"], counted["too_long_were"]) == (1, "split")


@pytest.mark.parametrize(("what", "kept"), [("drop", 1), ("cut", 2)])
def test_rows_longer_than_the_context_are_counted(tmp_path: Path, what: str, kept: int) -> None:
    records = [{"prompt": "1", "answer": "2"}, {"prompt": "1", "answer": "1 and 2 make 3. " * 9}]
    rows, counted = rows_of(tmp_path, records, context=16, too_long=what)
    assert (len(rows), counted["too_long"], counted["longest"] > 16) == (kept, 1, True)
    assert max(len(row.tokens) for row in rows) <= 16


def test_bad_data_is_told_with_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path, "") == "FILE: holds no rows"
    assert refusal(tmp_path, '{"prompt": "a", "answer": "b"}\nnonsense\n').startswith("FILE:2: no JSON")
    assert refusal(tmp_path, '{"question": "a"}\n') == (
        "FILE:1: needs 'prompt' and 'answer', 'messages', or 'text'; it has 'question'"
    )
    assert refusal(tmp_path, '{"prompt": "a"}\n') == "FILE:1: no text in column 'answer' (data.answer_column)"
    assert refusal(tmp_path, '{"prompt": "1 and 2 make 3. 4", "answer": "b"}\n', context=4).startswith(
        "FILE: no usable rows: 1 read, 1 longer than 4 tokens"
    )
    assert "more than data.context = 4" in refusal(
        tmp_path, '{"prompt": "1 and 2 make 3. 4", "answer": "b"}\n', context=4, too_long="refuse"
    )


def test_parquet_and_jsonl_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    records = [{"prompt": f"{a} and 1 make", "answer": f" {a + 1}."} for a in range(5)]
    rows, _ = rows_of(tmp_path, records)
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), file)
    assert read_rows([file], DataConfig(train=(file,)), WORDS)[0] == rows


def made(*lengths: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    return [
        Row(tuple(torch.randint(3, len(WORDS), (n,), generator=generator).tolist()), max(1, n // 2), i)
        for i, n in enumerate(lengths)
    ]


def learned_states(batch, implementation: str = "sdpa") -> torch.Tensor:
    model = llama(len(WORDS)).eval()
    model.config._attn_implementation = implementation
    with torch.no_grad():
        return states(model, batch).last[:, :-1][batch.predicting()]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padding_left_or_right_alone_or_packed_the_model_sees_the_same(implementation: str) -> None:
    rows = made(9, 4, 6)
    alone = torch.cat([learned_states(collate([(row,)], 0), implementation) for row in rows])
    for batch in (
        collate([(row,) for row in rows], 0),
        collate([(row,) for row in rows], 0, "left"),
        collate([rows], 0),
        collate([rows[:2], rows[2:]], 0, "left"),
    ):
        torch.testing.assert_close(learned_states(batch, implementation), alone, atol=1e-5, rtol=1e-4)
        assert batch.targets().tolist() == [token for row in rows for token in row.answer]


def test_packs_hold_every_row_once_and_never_more_than_the_context() -> None:
    rows = made(*[(7 * i) % 29 + 2 for i in range(200)])
    packs = packed(rows, 32)
    assert sorted(row.number for pack in packs for row in pack) == list(range(200))
    assert max(sum(len(row.tokens) for row in pack) for pack in packs) <= 32
    assert len(packs) <= 1.1 * sum(len(row.tokens) for row in rows) / 32


def test_each_epoch_brings_every_row_once_whatever_the_number_of_devices() -> None:
    packs = [(row,) for row in made(*[5] * 12)]

    def numbers(world: int, rows: int, accumulate: int) -> list[list[int]]:
        course = Course(packs, rows=rows, accumulate=accumulate, seed=1, pad_id=0, padding="right")
        return [
            [
                pack[0].number
                for micro in range(accumulate)
                for rank in range(world)
                for pack in course.batch(step, micro, rank, world).packs
            ]
            for step in range(6)
        ]

    one = numbers(1, 4, 1)
    assert numbers(2, 2, 1) == one
    assert numbers(1, 2, 2) == one
    assert sorted(one[0] + one[1] + one[2]) == list(range(12))
    assert one[:3] != one[3:]


def test_grouped_by_length_each_epoch_still_brings_every_row_once_with_little_padding() -> None:
    packs = [(row,) for row in made(*[(7 * i) % 29 + 2 for i in range(400)])]

    def batches(by_length: bool) -> list[Batch]:
        course = Course(packs, rows=8, accumulate=1, seed=1, pad_id=0, padding="right", by_length=by_length)
        return [course.batch(step, 0, 0, 1) for step in range(100)]

    def padding(found: list[Batch]) -> float:
        return sum(float((batch.owners == 0).sum()) for batch in found) / sum(batch.owners.numel() for batch in found)

    grouped = batches(True)
    numbers = [[pack[0].number for pack in batch.packs] for batch in grouped]
    for epoch in (numbers[:50], numbers[50:]):
        assert sorted(number for batch in epoch for number in batch) == list(range(400))
    assert {tuple(sorted(batch)) for batch in numbers[:50]} != {tuple(sorted(batch)) for batch in numbers[50:]}
    assert padding(grouped) < 0.05 < 0.3 < padding(batches(False))
    widths = [batch.tokens.shape[1] for batch in grouped[:50]]
    assert widths != sorted(widths)


def test_rows_kept_for_validation_are_spread_and_at_most_a_tenth() -> None:
    rows = made(*[4] * 50)
    train, held = split_off(rows, 100)
    assert [row.number for row in held] == [0, 10, 20, 30, 40]
    assert len(train) == 45
    assert split_off(rows[:9], 5) == (rows[:9], [])
