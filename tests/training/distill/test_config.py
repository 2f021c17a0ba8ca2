"""What a configuration may say, and what each mistake is told."""

import json
from pathlib import Path

import pytest

from tests.training.distill.pairs import settings, toml
from training.distill.config import read_config
from training.distill.errors import CannotDistill


def told(folder: Path, value: dict, method: str = "kd") -> str:
    file = folder / "config.toml"
    file.write_text(toml(value))
    with pytest.raises(CannotDistill) as caught:
        read_config(file, method)
    return str(caught.value).replace(str(file), "FILE")


def test_unknown_and_missing_keys_are_named_with_what_was_meant(tmp_path: Path) -> None:
    value = settings(tmp_path, training={"learing_rate": 1e-3})
    assert told(tmp_path, value) == "FILE: training.learing_rate: no such key; did you mean learning_rate?"
    del value["training"]["learing_rate"], value["student"]
    assert told(tmp_path, value) == "FILE: student: missing"


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    value = settings(tmp_path, training={"rows": 0}, loss={"kind": "sideways"})
    lines = told(tmp_path, value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["training.rows", "loss.kind"]


@pytest.mark.parametrize(
    ("sections", "method", "about"),
    [
        ({"training": {"epochs": 1.0}}, "kd", "steps or epochs"),
        ({"teacher": {"url": "http://127.0.0.1:1"}}, "kd", "either path"),
        ({"teacher": {"top_k": 5}}, "kd", "go together"),
        ({"teacher": {"top_k": 5, "cache": "c"}, "loss": {"on_policy": 0.5}}, "kd", "teacher in process"),
        ({"teacher": {"top_k": 5, "cache": "c"}}, "features", "teacher in process"),
        ({"teacher": {"top_k": 5, "cache": "c"}, "ranking": {"shuffled": True}}, "kd", "shuffled controls"),
        ({"training": {"vocabulary_at_once": 64}}, "ranking", "vocabulary_at_once"),
        ({"data": {"packing": True}, "loss": {"on_policy": 0.5}}, "kd", "packing"),
        ({"diffusion": {}}, "kd", "through-time alone"),
        ({"warmup": {}}, "kd", "tw distill warmup"),
        ({"ranking": {}}, "through-time", "does not combine"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(tmp_path: Path, sections: dict, method: str, about: str) -> None:
    assert about in told(tmp_path, settings(tmp_path, **sections), method)


def test_a_verb_brings_its_section_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(toml(settings(tmp_path)))
    assert read_config(file, "kd").ranking is None
    found = read_config(file, "ranking").ranking
    assert found is not None
    assert (found.k, found.weight) == (10, 0.5)


def test_json_and_yaml_say_the_same_as_toml(tmp_path: Path) -> None:
    value = settings(tmp_path, loss={"kind": "reverse"})
    for name, text in (("c.toml", toml(value)), ("c.json", json.dumps(value)), ("c.yaml", json.dumps(value))):
        (tmp_path / name).write_text(text)
    configs = [read_config(tmp_path / name, "kd") for name in ("c.toml", "c.json", "c.yaml")]
    assert configs[0] == configs[1] == configs[2]


def test_files_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CannotDistill, match=r"nowhere\.toml: cannot be read"):
        read_config(tmp_path / "nowhere.toml", "kd")
    (tmp_path / "bad.toml").write_text("out = [")
    with pytest.raises(CannotDistill, match=r"bad\.toml: "):
        read_config(tmp_path / "bad.toml", "kd")
