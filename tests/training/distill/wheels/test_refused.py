"""What cannot be learned from is one clear line."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.training.distill.pairs import save_model
from tests.training.distill.wheels.small import SMALL, Write, run, sections, wheels
from training.distill.cli import distill
from training.distill.errors import CannotDistill
from training.distill.wheels.restrictions import HELD_OUT, TRAINED, Restriction, read_restriction


def test_tokenizers_that_differ_are_refused_with_both_names(folder: Path, written_config: Write) -> None:
    save_model(folder / "other", size=300, seed=5, context=128)
    value = sections(folder, teacher={"path": str(folder / "other")}, wheels=SMALL)
    words = json.loads((folder / "other/tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    one, two = sorted(vocabulary, key=vocabulary.get)[40:42]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (folder / "other/tokenizer.json").write_text(json.dumps(words))
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(value))])
    assert done.exit_code == 2
    for said in (str(folder / "student"), str(folder / "other"), "different tokenizers", "teacher's text instead"):
        assert said in done.stderr


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"phrasings": ["Ask sometimes."]}, "needs {share} exactly once"),
        ({"phrasings": ["Ask for {share} of 30%."]}, "has 2 shares"),
        ({"levels": [0.3, 0.1]}, "levels rise"),
        ({"levels": [0.0, 0.1]}, "above 0"),
        ({"reward": "likeness", "word": 0, "likeness": 0}, "word above 0"),
        ({"held_out": [TRAINED[0]]}, "either trained or held out"),
        ({"segmnt": 2}, "did you mean segment?"),
        ({"token": "and"}, ""),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, written_config: Write, changes: Any, about: str) -> None:
    value = sections(folder, wheels={**SMALL, **changes})
    done = CliRunner().invoke(distill, ["wheels", "--config", str(written_config(value))])
    if about:
        assert (done.exit_code, about in done.stderr) == (2, True), done.output
        assert "Traceback" not in done.output


def test_wheels_belong_to_their_verb_and_stand_alone(folder: Path, written_config: Write) -> None:
    config = written_config(sections(folder, wheels=SMALL))
    done = CliRunner().invoke(distill, ["kd", "--config", str(config)])
    assert (done.exit_code, "belongs to tw distill wheels alone" in done.stderr) == (2, True)
    config = written_config(sections(folder, wheels=SMALL, ranking={"k": 4}))
    done = CliRunner().invoke(distill, ["wheels", "--config", str(config)])
    assert (done.exit_code, "does not combine with wheels" in done.stderr) == (2, True)


def test_lora_without_peft_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from training.extras import ExtraMissing

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else found(name, *a))
    with pytest.raises(ExtraMissing, match="peft is not installed"):
        run(wheels(folder, lora={"rank": 2}))


def test_texts_are_refused_since_there_is_nothing_to_put_a_restriction_before(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps({"text": "3 and 4 make 7."}) + "\n")
    with pytest.raises(CannotDistill, match="needs prompts and answers"):
        run(wheels(folder))


@pytest.mark.parametrize(
    ("sentence", "share"), [(Restriction(0.2, one).sentence, 0.2) for one in (*TRAINED, *HELD_OUT)]
)
def test_every_sentence_can_be_read_back(sentence: str, share: float) -> None:
    assert read_restriction(sentence) == pytest.approx(share)


@pytest.mark.parametrize("sentence", ["Ask sometimes.", "Between 10% and 20%.", "At most 130% of the tokens."])
def test_a_restriction_that_says_no_share_is_quoted(sentence: str) -> None:
    with pytest.raises(CannotDistill, match="a restriction says one") as caught:
        read_restriction(sentence)
    assert repr(sentence) in str(caught.value)
