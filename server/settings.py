"""Settings: one frozen value, read from flags, `TW_…` environment variables and a TOML file, in that order of strength.

No secret is ever a setting: keys of upstreams are named by the environment variable that holds them, and the gateway's
own keys are kept hashed in the state directory. So settings can be printed and handed to workers as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from server.trained import UnreadableWheels, help_of, trained_to_ask

SHIPPED = Path(__file__).parent / "shipped"


class SettingsError(Exception):
    """Settings that cannot be used; the message names the setting and what to do."""


class Upstream(BaseModel):
    """One of the two models: either started here (`model`) or attached to (`url`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, description="A directory or hub name to serve with a managed engine.")
    engine: Literal["auto", "vllm", "embedded"] = Field("auto", description="What serves `model`.")
    engine_args: tuple[str, ...] = Field((), description="Extra arguments for the managed engine.")
    python: str | None = Field(None, description="Interpreter that has vLLM, where it lives in its own environment.")
    url: str | None = Field(None, description="Base URL of a running OpenAI-compatible server, ending in /v1.")
    name: str | None = Field(None, description="The model name the upstream knows; asked from it where absent.")
    api_key_env: str | None = Field(None, description="Name of the environment variable that holds the upstream's key.")
    usd_per_million_prompt_tokens: Annotated[float, Field(ge=0)] = 0.0
    usd_per_million_completion_tokens: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(gt=0)] = Field(
        2048, description="Completion limit set on calls without one while tokens or USD are capped."
    )
    logprobs: bool = Field(True, description="Ask this upstream for log-probabilities when the policy reads drafts.")
    usage_in_every_chunk: bool = Field(
        False, description="The upstream knows vLLM's continuous_usage_stats (set by itself for managed engines)."
    )

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not an http(s) URL; write it like http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ValueError("the URL holds a user name or password; put the key into an environment variable instead")
        return value.rstrip("/")


class Teacher(Upstream):
    """One of several teachers."""

    label: str = Field("", description="What clients, records and metrics call it; the model's name if empty.")

    @model_validator(mode="after")
    def _has_a_label(self) -> "Teacher":
        label = self.label or self.name or (self.model or "").rstrip("/").rsplit("/", 1)[-1]
        if not label:
            raise ValueError("give this teacher a label: what clients and records are to call it")
        if label in ("auto", "student", "teacher") or any(each.isspace() or not each.isprintable() for each in label):
            raise ValueError(f"{label!r} cannot be a teacher's label: no auto, student or teacher, and no white space")
        object.__setattr__(self, "label", label)  # frozen; said once, here
        return self


class Timeouts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_s: Annotated[float, Field(gt=0)] = 2.0
    silence_s: Annotated[float, Field(gt=0)] = Field(120.0, description="How long an upstream may send nothing.")
    upload_s: Annotated[float, Field(gt=0)] = Field(30.0, description="How long a client may take to send its body.")
    ledger_s: Annotated[float, Field(gt=0)] = 0.05
    policy_s: Annotated[float, Field(gt=0)] = Field(
        0.5, description="How long the policy may take to score what it was asked at one time; then it starts anew."
    )
    samples_s: Annotated[float, Field(gt=0)] = Field(
        2.0, description="How long a draft waits for the student's samples, where the policy looks at some."
    )
    shutdown_s: Annotated[float, Field(gt=0)] = 30.0


class Help(BaseModel):
    """The teacher inside a student's answer; docs/help.md."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["off", "student", "policy"] = Field(
        "off",
        description="Who asks: the student with its own token, or a policy that watches its log-probabilities. "
        "A student's directory with `wheels.json` says this and what follows itself.",
    )
    token: Annotated[str, Field(min_length=1)] = Field("<help>", description="What a student trained to ask asks with.")
    token_id: Annotated[int, Field(ge=0)] | None = Field(None, description="Its id; asked of the student where absent.")
    tokens: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="Tokens the teacher writes each time.")
    max_segments: Annotated[int, Field(ge=1, le=10_000)] = Field(16, description="Helps in one answer.")
    token_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="The teacher's part of the tokens of answers written with help: a cap."
    )
    watched_tokens: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Tokens of the student held back and looked at together before they go out (by = policy)."
    )
    doubt: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Largest probability under which the student is doubted while nothing limits help."
    )
    # No fewer than a character can have bytes: a student called for less might never finish one.
    retry_tokens: Annotated[int, Field(ge=4)] = Field(
        16, description="How long the student goes on without asking after a help was refused or failed."
    )
    restriction: str = Field(
        "", description="The prompt as the student is given it, with {percent} and {prompt}; empty: as it is."
    )
    levels: tuple[Annotated[int, Field(ge=0, le=100)], ...] = Field(
        (), description="The percentages that the student was trained with."
    )
    offset: Annotated[float, Field(ge=-50, le=50)] = Field(
        0.0, description="Added to the logit of the token it asks with; `tw distill wheels` reports one per level."
    )
    exact: bool = Field(True, description="Hand over token ids where both models have one tokenizer.")

    @field_validator("restriction")
    @classmethod
    def _has_places(cls, value: str) -> str:
        if value and ("{prompt}" not in value or "{percent}" not in value):
            raise ValueError(
                "write it with {percent} and {prompt}: 'Ask for at most {percent}% of the tokens. {prompt}'"
            )
        return value


def _named(upstream: Any) -> bool:
    if isinstance(upstream, Upstream):
        return upstream.url is not None or upstream.model is not None
    return isinstance(upstream, dict) and (upstream.get("url") is not None or upstream.get("model") is not None)


def _first_of_several(data: dict[str, Any]) -> dict[str, Any]:
    """The settings with the first of several teachers as the teacher, whoever looks at one."""
    several = data["teachers"]
    if not isinstance(several, list | tuple) or not isinstance(several[0], dict | Teacher):
        return data  # the field's own check says what is wrong
    said, given = several[0], data.get("teacher")
    said = said.model_dump() if isinstance(said, Teacher) else said
    first = Upstream(**{key: value for key, value in said.items() if key != "label"})
    # Settings that were read once already hold both.
    if given is not None and Upstream.model_validate(given) != first:
        raise ValueError("teacher and teachers: give [teacher] for one, or [[teachers]] for several, not both")
    if not _named(data.get("student")):
        raise ValueError("teachers are named but no student; name it, with a model or a url")
    return {**data, "teacher": first}


class Settings(BaseSettings):
    """Everything an operator can set; `docs/operators.md` lists each."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="TW_", env_nested_delimiter="__")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    state_dir: Path = Field(default_factory=lambda: user_state_path("training-wheels"))
    student: Upstream = Field(default_factory=lambda: Upstream(model=str(SHIPPED / "student")))
    teacher: Upstream | None = Field(default_factory=lambda: Upstream(model=str(SHIPPED / "teacher")))
    teachers: tuple[Teacher, ...] = Field(
        (), description="Several teachers, in place of `teacher`; the first is the one that is meant by `teacher`."
    )
    budget: str = Field("At most 20% of requests.", description="The budget, in plain words.")
    policy: Path | None = Field(None, description="A policy artifact; the shipped one where absent.")
    # The names of `policies.safe`, which is not imported here because it needs numpy and most commands do not.
    fallback_policy: Literal["student", "random", "length", "logprob"] = Field(
        "student", description="What decides when the policy in service fails."
    )
    timezone: str = Field("UTC", description="IANA zone of calendar windows whose sentence names none.")
    rates: Mapping[str, float] = Field(default_factory=dict, description="USD per unit of other currencies, by code.")
    aliases: tuple[str, ...] = Field((), description="More model names that mean `auto`.")
    explore: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of requests decided by a coin, unless the budget says one."
    )
    held_tokens: Annotated[int, Field(ge=1)] = Field(
        64, description="How many tokens of a streamed draft are held back before the policy must decide."
    )
    log_text: bool = Field(False, description="Write prompts and answers into the decision log.")
    log_segment_mb: Annotated[int, Field(ge=1)] = 64
    log_segments: Annotated[int, Field(ge=2)] = Field(64, description="Segments kept in all before the oldest goes.")
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 * 1024 * 1024
    max_queue: Annotated[int, Field(ge=0)] = Field(64, description="Requests that may wait for budget at one time.")
    trust_user_header: bool = Field(True, description="Count `x-tw-user` as the user in per-user limits.")
    timeouts: Timeouts = Timeouts()
    help: Help = Help()

    @field_validator("state_dir", "policy")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @model_validator(mode="before")
    @classmethod
    def _pair_named_together(cls, data: Any) -> Any:
        """A student of one's own never gets the shipped teacher by default, nor the other way round."""
        if not isinstance(data, dict):
            return data
        if data.get("teachers"):
            return _first_of_several(data)
        if _named(data.get("student")) and "teacher" not in data:
            return {**data, "teacher": None}
        if _named(data.get("teacher")) and not _named(data.get("student")):
            raise ValueError("a teacher is named but no student; name both, with a model or a url each")
        return data

    @field_validator("student", "teacher")
    @classmethod
    def _shipped_unless_named(cls, value: Upstream | None, info: ValidationInfo) -> Upstream | None:
        if value is None or value.model is not None or value.url is not None:
            return value
        return value.model_copy(update={"model": str(SHIPPED / str(info.field_name))})

    @model_validator(mode="after")
    def _one_place_per_model(self) -> "Settings":
        for role, upstream in (("student", self.student), ("teacher", self.teacher)):
            if upstream is None:
                continue
            if upstream.model is not None and upstream.url is not None:
                raise ValueError(f"{role}: give either a model to start or a url to attach to, not both")
        for place, upstream in enumerate(self.teachers):
            if (upstream.model is None) == (upstream.url is None):
                raise ValueError(f"teachers.{place} ({upstream.label}): give either a model to start or a url")
        labels = [upstream.label for upstream in self.teachers]
        twice = next((label for label in labels if labels.count(label) > 1 or label in self.aliases), None)
        if twice is not None:
            raise ValueError(f"teachers: the label {twice!r} is taken twice, or is an alias; each teacher has its own")
        return self

    @model_validator(mode="after")
    def _help_needs_a_teacher(self) -> "Settings":
        if self.help.by != "off" and self.teacher is None:
            raise ValueError("help.by: there is no teacher to help; name one, or set help.by = off")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, toml

    @property
    def loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost") or self.host.startswith("127.")


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Reads the settings; flags that are None count as not given. Raises SettingsError with one line per fault."""
    import tomllib

    from pydantic import ValidationError
    from pydantic_settings import SettingsError as SourceError

    given = {name: value for name, value in flags.items() if value is not None}
    if config is not None and not config.is_file():
        raise SettingsError(f"--config {config}: no such file")

    class WithFile(Settings):
        model_config = SettingsConfigDict(**{**Settings.model_config, "toml_file": config})

    try:
        found = WithFile(**given)
        # Validate anew as plain Settings so that equality and pickling do not meet the local class.
        return Settings.model_validate(found.model_dump() | {"help": _help_as_trained(found)})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"--config {config}: not TOML: {error}") from None
    except (SourceError, UnreadableWheels) as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        where = f" in {config}" if config else ""
        lines = [f"setting {'.'.join(map(str, e['loc'])) or 'settings'}{where}: {e['msg']}" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def _help_as_trained(settings: Settings) -> dict[str, Any]:
    """Settings of help, those that nobody gave as the student was trained, where it was."""
    given = settings.help.model_dump(include=settings.help.model_fields_set)
    model = settings.student.model
    if settings.teacher is None or given.get("by") == "off" or model is None or not trained_to_ask(model):
        return given
    return help_of(model) | given
