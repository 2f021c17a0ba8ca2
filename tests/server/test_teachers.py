"""Which teachers are meant, which can be asked, and what is warned of."""

from pathlib import Path
from typing import Any, cast

import pytest

from policies.policy import Scores, TeacherScore
from server.scoring.wire import outcome_row, scores_of
from server.served_models import ServedModels
from server.settings import Settings, SettingsError, Upstream, load_settings
from server.teachers import Teacher, Teachers


class Named:
    """As much of an upstream as its name."""

    def __init__(self, name: str, *, said: bool = False) -> None:
        self.name = name
        self.settings = Upstream(url="http://127.0.0.1:1/v1", name=name if said else None)


def teachers(*labels: str, now: list[float] | None = None, told: list[str] | None = None) -> Teachers:
    clock = now or [0.0]
    heard = told if told is not None else []
    return Teachers(
        [Teacher(label, cast(Any, Named(f"org/{label}-Instruct"))) for label in labels],
        now=lambda: clock[0],
        tell=lambda each: heard.append(each.state),
    )


def test_a_policys_names_mean_the_teachers_that_are_called_so() -> None:
    both = teachers("coder", "scholar")
    meant = both.match(["Scholar", "/models/coder-instruct/", "nobody"])
    assert {name: each.label for name, each in meant.items()} == {
        "Scholar": "scholar",
        "/models/coder-instruct/": "coder",
    }


def test_names_that_nobody_knows_mean_the_teachers_in_their_order() -> None:
    assert {k: v.label for k, v in teachers("a", "b").match(["x", "y", "z"]).items()} == {"x": "a", "y": "b"}


def test_a_server_of_many_models_stands_for_the_one_that_is_meant() -> None:
    everything = ("coder", "scholar", "painter")
    first = Teacher("one", cast(Any, Named("coder", said=True)), served=everything)
    second = Teacher("two", cast(Any, Named("scholar", said=True)), served=everything)
    both = Teachers([first, second])
    assert {name: each.label for name, each in both.match(["coder", "scholar"]).items()} == {
        "coder": "one",
        "scholar": "two",
    }
    assert both.named("painter") is None


def test_a_teacher_that_fails_five_times_is_set_aside_and_comes_back_after_three_good_tries() -> None:
    now, told = [0.0], list[str]()
    both = teachers("coder", "scholar", now=now, told=told)
    coder, scholar = both.all
    for _ in range(5):
        both.called(coder)
        both.failed(coder)
    assert (both.available(), told) == ([scholar], ["set aside"])
    now[0] = 1.0
    assert both.available() == [coder, scholar]
    both.called(coder)
    assert both.available() == [scholar]  # one request tries, the others do not wait for what it finds
    both.let_go(coder)
    assert both.available() == [coder, scholar]
    for _ in range(3):
        both.called(coder)
        both.answered(coder)
    assert (both.available(), told) == ([coder, scholar], ["set aside", "unreachable"])
    assert not coder.breaker.aside


def test_only_teachers_that_can_be_asked_are_offered() -> None:
    both = teachers("coder", "scholar")
    scores = [TeacherScore("scholar", 1.0, 0.1), TeacherScore("third", 2.0, 0.2), TeacherScore("coder", 0.0, 0.0)]
    assert [(said.name, each.label) for said, each in both.offered(scores)] == [
        ("scholar", "scholar"),
        ("coder", "coder"),
    ]


def test_scores_of_several_teachers_cross_to_the_worker_whole() -> None:
    scores = Scores(1.0, {"price": 0.5}, (TeacherScore("a", 1.0, 0.2, 0.01, 0.03), TeacherScore("b", 0.5, 0.1)))
    assert scores_of(outcome_row(scores)) == scores
    assert outcome_row(Scores(1.0, {"price": 0.5})) == [1.0, {"price": 0.5}]


MANIFEST = {"version": "abc", "name": "mine", "student_model": None}
COMMON = {"coder": ["coder"], "large": ["large"]}
SEVERAL = {**MANIFEST, "teachers": [{"name": "coder"}, {"name": "scholar"}], "teacher_model": "coder"}


@pytest.mark.parametrize(
    ("manifest", "served", "said"),
    [
        (SEVERAL, {"one": ["one", "Coder"], "two": ["org/scholar"]}, []),
        (SEVERAL, COMMON, ["scholar is not served, and is never", "large is served too"]),
        (SEVERAL, {"a": ["a"], "b": ["b"]}, ["none of them is served, but a, b, which it takes for them in"]),
        (SEVERAL, {"a": [], "b": []}, []),
        ({**MANIFEST, "teacher_model": "coder"}, COMMON, ["large is served too, and as"]),
        ({**MANIFEST, "teacher_model": None}, COMMON, []),
    ],
)  # fmt: skip
def test_a_policy_for_other_teachers_is_warned_of_by_name(
    tmp_path: Path, manifest: dict[str, Any], served: dict[str, list[str]], said: list[str]
) -> None:
    ServedModels(None, served).write(tmp_path, managed=ServedModels())
    warnings = ServedModels.read(tmp_path).warnings(manifest)
    assert len(warnings) == len(said), warnings
    for warning, part in zip(warnings, said, strict=True):
        assert part in warning
        assert warning.startswith("policy abc (mine) was trained for the teachers coder")


def test_a_policy_for_several_teachers_where_one_is_served_is_warned_of() -> None:
    one = ServedModels({"student": (), "teacher": ("coder",)})
    assert one.warnings(SEVERAL) == [
        "policy abc (mine) was trained for the teachers coder, scholar; scholar is not served, and is never asked"
    ]


STUDENT = '[student]\nurl = "http://127.0.0.1:8001/v1"\n'
TWO = (
    STUDENT
    + '[[teachers]]\nlabel = "medium"\nurl = "http://127.0.0.1:8002/v1"\nusd_per_million_prompt_tokens = 0.15\n'
    + '[[teachers]]\nurl = "https://llm.example.com/v1"\nname = "large"\napi_key_env = "LARGE_API_KEY"\n'
)


def read(tmp_path: Path, text: str, **flags: Any) -> Settings:
    path = tmp_path / "tw.toml"
    path.write_text(text)
    return load_settings(path, **flags)


def test_several_teachers_are_read_from_a_file_and_the_first_is_the_teacher(tmp_path: Path) -> None:
    settings = read(tmp_path, TWO)
    assert [each.label for each in settings.teachers] == ["medium", "large"]
    assert settings.teacher == Upstream(url="http://127.0.0.1:8002/v1", usd_per_million_prompt_tokens=0.15)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO + '[teacher]\nurl = "http://127.0.0.1:9/v1"\n', "give [teacher] for one, or [[teachers]] for several"),
        ('[[teachers]]\nurl = "http://a/v1"\nlabel = "x"\n', "teachers are named but no student"),
        (STUDENT + '[[teachers]]\nurl = "http://a/v1"\n', "give this teacher a label"),
        (STUDENT + '[[teachers]]\nurl = "http://a/v1"\nlabel = "student"\n', "'student' cannot be a teacher's label"),
        (STUDENT + '[[teachers]]\nurl = "http://a/v1"\nlabel = "a b"\n', "'a b' cannot be a teacher's label"),
        (STUDENT + '[[teachers]]\nurl = "http://a/v1"\nlabel = "x"\n' * 2, "the label 'x' is taken twice"),
        (STUDENT + '[[teachers]]\nlabel = "x"\n', "teachers.0 (x): give either a model to start or a url"),
        ('teachers = "x"\n' + STUDENT, "teachers"),
    ],
)
def test_settings_of_several_teachers_that_cannot_be_used_are_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


def test_a_teacher_on_the_command_line_beside_several_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not both"):
        read(tmp_path, TWO, teacher={"url": "http://127.0.0.1:9/v1"})


def test_several_models_that_are_started_have_engines_and_logs_of_their_own(tmp_path: Path) -> None:
    from server.running import _as_settings, _roles

    settings = read(tmp_path, '[student]\nmodel = "s"\n[[teachers]]\nmodel = "org/m"\n[[teachers]]\nmodel = "l"\n')
    roles = _roles(settings)
    assert [(role, each.model) for role, each in roles.items()] == [
        ("student", "s"), ("teacher-1", "org/m"), ("teacher-2", "l"),
    ]  # fmt: skip
    attached = {role: each.model_copy(update={"model": None, "url": f"http://{role}"}) for role, each in roles.items()}
    running = settings.model_copy(update=_as_settings(attached))
    assert [(each.label, each.url) for each in running.teachers] == [
        ("m", "http://teacher-1"),
        ("l", "http://teacher-2"),
    ]
    assert running.teacher is not None
    assert running.teacher.url == "http://teacher-1"
    assert Settings.model_validate_json(running.model_dump_json()) == running
