"""What a distillation is asked to do: a TOML (or JSON, or YAML) file, read into frozen models that refuse unknown keys.

One shape serves all methods, because methods combine: `[ranking]` and `[features]` add their terms to distillation,
`[warmup]` goes before it. A verb only says which section must be there; one that is absent then takes its defaults.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from training.distill.errors import CannotDistill
from training.distill.wheels.restrictions import HELD_OUT, TRAINED, check_phrasing

Kind = Literal["forward", "reverse", "js", "skew", "skew-reverse", "tvd", "adaptive"]
Alignment = Literal["nd", "cos", "cos-norm", "mse"]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Order = Literal["dilated", "ancestral"]


class Section(BaseModel):
    """A part of the file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudentConfig(Section):
    """The model that learns: a directory, or a name that transformers knows."""

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights while they learn; float32 keeps small steps, `training.bf16` computes in bfloat16 either way."""
    export_dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class TeacherConfig(Section):
    """Where the teacher's probabilities come from: a model in this process, or top-k log-probabilities on disk that a
    model in this process (`path`) or a vLLM server (`url`) gave."""

    path: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    url: str | None = None
    model: str = "teacher"
    key_env: str | None = None
    top_k: Positive | None = None
    cache: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> "TeacherConfig":
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path (a model) or url (a vLLM server)")
        if (self.top_k is None) != (self.cache is None):
            raise ValueError("top_k and cache go together: how many log-probabilities, and where they are kept")
        if self.url is not None and self.cache is None:
            raise ValueError("a teacher behind url needs top_k and cache")
        return self


class DataConfig(Section):
    """Rows of prompt and answer, of messages, or of text, as JSONL or Parquet."""

    train: tuple[Path, ...] = Field(min_length=1)
    validation: tuple[Path, ...] = ()
    validation_rows: int = Field(default=512, ge=0)
    """Where no validation files are named, so many rows (a tenth at most) are taken off the training rows."""
    prompt_column: str = "prompt"
    answer_column: str = "answer"
    text_column: str = "text"
    chat: bool = False
    """Prompts go through the tokenizer's chat template."""
    context: Positive = 1024
    too_long: Literal["drop", "cut", "refuse"] = "drop"
    """What becomes of a row that is longer than `context`; counted and reported in any case. Text is split instead."""
    packing: bool = False
    padding: Literal["right", "left"] = "right"


class TrainingConfig(Section):
    """Steps, sizes and rates. A step is `rows` rows, `accumulate` times, on every device."""

    steps: Positive | None = None
    epochs: float | None = Field(default=None, gt=0)
    rows: Positive = 16
    accumulate: Positive = 1
    group_by_length: bool = False
    """Rows of about one length come together: less padding, and batches that are less alike."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: orthogonalised momentum for matrices inside the layers, AdamW for the rest; for models from scratch."""
    learning_rate: float = Field(default=2e-5, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Share = 0.03
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(default=1.0, gt=0)
    bf16: bool = False
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    tokens_at_once: Positive = 2048
    """Logits exist for so many tokens at a time."""
    vocabulary_at_once: Positive | None = None
    """Logits exist for so many words of the vocabulary at a time; plain divergences with a teacher in process only."""
    log_every: Positive = 10
    evaluate_every: Positive = 200
    checkpoint_every: Positive = 200
    keep: Positive = 2

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingConfig":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.optimizer == "muon" and self.sharding != "none":
            raise ValueError("optimizer muon needs whole matrices: set sharding to none, or take adamw")
        return self


class LossConfig(Section):
    """Distillation itself: which divergence, how hot, on whose text."""

    kind: Kind = "forward"
    temperature: float = Field(default=1.0, gt=0)
    skew: float = Field(default=0.1, ge=0, le=1)
    """The mixture of the skewed kinds; the weight of the teacher in js (0.5 is the symmetric one)."""
    weight: float = Field(default=1.0, ge=0)
    cross_entropy: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy to the data's own answers."""
    normaliser: float = Field(default=0.0, ge=0)
    """Weight of the squared log-normaliser of the student's logits (z-loss), which keeps logits log-probabilities."""
    on_policy: Share = 0.0
    """Part of the rows whose answer the student writes anew."""
    max_new_tokens: Positive = 128
    shuffled_teacher: bool = False
    """A control: every token gets another token's teacher. Must lose."""


class RankingConfig(Section):
    """The order of the likeliest words (RLKD). As published: on = "probability", temperature = 0.05, weight = 2; the
    defaults are what held against its control (docs/distill/ranking.md)."""

    k: Positive = 10
    weight: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    """Of the soft ranks, in units of log-probability (or of probability, by `on`)."""
    on: Literal["probability", "log-probability"] = "log-probability"
    dynamic: bool = False
    """Weight the divergence by the overlap of both top-k sets."""
    confidence: bool = False
    """Weight the ranking term of a token by how sure the teacher is of it, so that doubtful orders count less."""
    shuffled: bool = False
    """A control: the teacher's ranks are shuffled within each token. Must lose."""


class FeaturesConfig(Section):
    """Direction and norm of hidden states."""

    kind: Alignment = "nd"
    weight: float = Field(default=1.0, ge=0)
    layers: tuple[tuple[int, int], ...] | None = None
    """(student layer, teacher layer), counted from 1; negative counts from the end. Default: the last of both."""
    projection: Literal["linear", "low-rank", "orthogonal"] = "linear"
    rank: Positive = 64
    start: Literal["fitted", "orthogonal"] = "fitted"
    """Where the projection starts: the map that fits both models' states best before the first step (frozen ones: the
    best rotation and one scale), or orthogonal by chance."""
    centred: bool = True
    """The teacher's mean state is taken off its states, and the projection gets a constant: what all tokens share is
    not alignment."""
    target: Literal["token", "class-mean", "output-embedding"] = "token"
    places: Literal["answers", "all"] = "answers"
    """Where states are compared: at the places that predict answer tokens, or at those of the prompt as well."""
    log_norm: float = Field(default=1.0, ge=0)
    """Weight of the squared difference of log-norms in `cos-norm`."""
    shuffled: bool = False
    """A control: teacher states from other positions. Must lose."""

    @model_validator(mode="after")
    def _fits(self) -> "FeaturesConfig":
        if self.places == "all" and self.target != "token":
            raise ValueError("places = all needs target = token: a prompt's next tokens are not to be predicted")
        return self


class WarmupConfig(Section):
    """Correct the student's own text where the teacher finds it improbable, and align to that first."""

    top_k: Positive = 25
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Reject by the teacher's probability instead of by its top-k."""
    replace: Literal["greedy", "sample"] = "greedy"
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: Positive = 128
    prompts: Positive | None = None
    beta: float = Field(default=0.1, gt=0)
    preference: float = Field(default=1.0, ge=0)
    """Weight of the preference term; 0 leaves plain imitation of the corrected text."""
    imitation: float = Field(default=1.0, ge=0)
    """Weight of the mean log-likelihood of the corrected text (lambda)."""
    epochs: float = Field(default=1.0, gt=0)
    learning_rate: float | None = Field(default=None, gt=0)
    rows: Positive | None = None


class DiffusionConfig(Section):
    """A masked diffusion student: text of a fixed length, base training, and rounds that halve its steps."""

    length: Positive = 128
    mask_token: str = "<|mask|>"  # noqa: S105
    begin_token: str | None = None
    """Stands before every text, on top of `length`, and is never masked; default: the tokenizer's begin token, else its
    end token."""
    base_steps: int = Field(default=0, ge=0)
    base_learning_rate: float = Field(default=1e-3, gt=0)
    from_steps: Positive = 128
    """Sampling steps of the teacher of the first round."""
    rounds: int = Field(default=3, ge=0)
    """Without one the student is the base, which is to take `from_steps` steps."""
    steps_per_round: Positive = 500
    substeps: int = Field(default=2, ge=1)
    """Teacher steps that one student step learns to take (m); a round divides the steps by it."""
    order: Order = "dilated"
    """Which places share a step (diffusion/sampler.py), in rounds and wherever the student is sampled or served."""
    kind: Literal["reverse", "forward", "mse", "tvd"] = "reverse"
    ema: float | None = Field(default=None, ge=0, lt=1)
    """Default: 1 - 10 / steps_per_round, so that the average covers about a tenth of a round."""
    smallest_time: float = Field(default=1e-3, gt=0, lt=1)

    @property
    def average(self) -> float:
        return max(0.0, 1.0 - 10.0 / self.steps_per_round) if self.ema is None else self.ema


class LoraConfig(Section):
    """Small matrices beside the student's own, merged when it is written (needs peft)."""

    rank: Positive = 16
    alpha: float = Field(default=32.0, gt=0)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class WheelsConfig(Section):
    """Training wheels: path consistency over the vocabulary plus a token that asks the teacher."""

    help: bool = True
    """Whether the student may ask. Without it path consistency is a plain way to distil."""
    token: str = "<help>"  # noqa: S105
    segment: Positive = 1
    """Tokens that the teacher writes each time (k)."""
    levels: tuple[Share, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    phrasings: tuple[str, ...] = TRAINED
    held_out: tuple[str, ...] = HELD_OUT
    """Sentences that training never shows; the report says what share they get."""
    unrestricted: Share = 0.25
    """Part of the texts without a sentence, where asking is banned."""
    reward: Literal["regret", "likeness", "log-probability"] = "regret"
    """What a token earns: the teacher's log-probability, or its regret, which is what it lies below the teacher's
    likeliest word. `likeness`: a word that is right earns `word` and what it makes the whole text more like the
    teacher's; how likely it is right, the teacher says (with help, greedy decoding and segments of one token)."""
    word: float = Field(default=3.5, ge=0)
    """Nats that a right word is worth in itself (likeness)."""
    likeness: float = Field(default=35.0, ge=0)
    """Nats that a text wholly like the teacher's is worth more than one wholly unlike it."""
    forks: Positive = 2
    """States of a text of the student's at which both actions are written to the end (likeness)."""
    worst: float = Field(default=1.0, gt=0)
    """No token earns less than minus this (regret, log-probability)."""
    decoding: Literal["greedy", "sampling"] = "greedy"
    """How the student will be served; greedy leaves the vocabulary to distillation and learns when to ask."""
    temperature: float | None = Field(default=None, gt=0)
    """Absent: 0.3 with help and greedy decoding (likeness: 1), else 1. At 1 most of what the rest of a text is worth is
    the entropy of decisions that are never drawn, which hides what asking early saves."""
    windows: tuple[Positive, ...] = (4, 16)
    """Lengths of sub-trajectories, beside single steps of both actions."""
    value: bool = True
    """Without it asking is judged by the next token alone."""
    informed: bool = True
    """Whether the critic of what follows a word reads what the teacher says of the word (regret)."""
    consistency: float = Field(default=0.5, ge=0)
    distillation: float = Field(default=1.0, ge=0)
    """Weight of the divergence from the teacher on every text."""
    own_words: float = Field(default=1.0, ge=0)
    """What that weight is multiplied by on the student's own texts. 0 where these are written for prompts unlike those
    it will be served with, which teach when to ask but no words."""
    normaliser: float = Field(default=1.0, ge=0)
    """Weight of the squared log-normaliser of the words' logits (z-loss): what it leaves is noise on every decision."""
    critic: float = Field(default=0.1, ge=0)
    """Weight of the cost critic."""
    reading: float = Field(default=0.3, ge=0)
    """Weight of reading the share off the state, which has the student look at the sentence from the first step."""
    sentence_steps: int = Field(default=0, ge=0)
    """Steps before the wheels, on the data's texts: words, with sentences before the prompts, and nothing to ask for.
    A student that meets sentences first when it learns to ask writes worse under some of them than under none."""
    sentence_rate: float | None = Field(default=None, gt=0)
    """Learning rate of those; training.learning_rate where absent."""
    off_policy: Share = 0.5
    teacher_text: Share = 0.5
    """Part of the off-policy texts that the teacher wrote; the others are the data's."""
    prompts: tuple[Path, ...] = ()
    """More prompts, without answers: the teacher's and the student's texts are written for these instead of the data's.
    What a teacher has learned by heart does not show where a student will need it."""
    rounds: Positive = 20
    trajectories: Positive = 1024
    """Texts collected in a round."""
    rounds_kept: Positive = 4
    exploration: float = Field(default=1.0, ge=0)
    """Noise on the decision to ask, in nats, in the `explored` part of the student's texts."""
    explored: Share = 0.25
    multipliers: Literal["per-level", "one"] = "per-level"
    proportional: float = Field(default=0.25, ge=0)
    """Gains of the multipliers, per round, in nats of price per nat that the score of `<help>` lies off."""
    integral: float = Field(default=0.5, ge=0)
    derivative: float = Field(default=0.0, ge=0)
    decided: bool = True
    """Whether, at the end, `<help>`'s row is fitted to the decisions that cost least (likeness)."""
    settling: int = Field(default=2, ge=0)
    """How often, at the end, `<help>`'s row is moved to where every level and phrasing gets its share."""
    top_k: Positive = 32
    """Teacher's log-probabilities kept per token; the tail is one bucket."""
    max_new_tokens: Positive = 128
    lora: LoraConfig | None = None

    @property
    def heat(self) -> float:
        """The temperature of path consistency."""
        usual = 0.3 if self.help and self.decoding == "greedy" and not self.judged else 1.0
        return usual if self.temperature is None else self.temperature

    @property
    def judged(self) -> bool:
        """Whether both actions are judged to the end of the text at once."""
        return self.reward == "likeness"

    @property
    def forked(self) -> bool:
        """Whether texts are written to their end twice, for what a word does to the rest."""
        return self.judged and self.value and self.likeness > 0

    @field_validator("phrasings", "held_out")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_phrasing(phrasing) for phrasing in value)

    @model_validator(mode="after")
    def _fits_together(self) -> "WheelsConfig":
        if self.help and not (self.levels and self.phrasings):
            raise ValueError("needs levels and phrasings, or help = false")
        if any(not 0 < level <= 1 for level in self.levels):
            raise ValueError("levels are shares above 0 and at most 1")
        if sorted(set(self.levels)) != list(self.levels):
            raise ValueError("levels rise, each one once")
        if self.judged and not (self.help and self.decoding == "greedy" and self.segment == 1):
            raise ValueError("reward likeness goes with help, decoding greedy and segment 1")
        if self.judged and not self.forked and not self.word:
            raise ValueError("nothing would be worth asking for: word above 0, or likeness above 0 with value = true")
        if set(self.phrasings) & set(self.held_out):
            raise ValueError("a phrasing is either trained or held out")
        return self


class DistillConfig(Section):
    """The whole file."""

    out: Path
    seed: int = 0
    student: StudentConfig
    teacher: TeacherConfig | None = None
    data: DataConfig
    training: TrainingConfig = TrainingConfig(epochs=1.0)
    loss: LossConfig = LossConfig()
    ranking: RankingConfig | None = None
    features: FeaturesConfig | None = None
    warmup: WarmupConfig | None = None
    diffusion: DiffusionConfig | None = None
    wheels: WheelsConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> "DistillConfig":
        cached = self.teacher is not None and self.teacher.cache is not None
        plain = self.ranking is None and not cached and self.loss.kind != "adaptive" and not self.loss.normaliser
        if self.training.vocabulary_at_once is not None and not plain:
            raise ValueError(
                "training.vocabulary_at_once needs a plain divergence and a teacher in process; ranking, adaptive, "
                "loss.normaliser and cached log-probabilities use training.tokens_at_once"
            )
        if cached and (self.features is not None or self.loss.on_policy > 0 or self.warmup is not None):
            raise ValueError(
                "features, warm-up and on-policy text need the teacher in process, without top_k and cache"
            )
        shuffled = self.loss.shuffled_teacher or (self.ranking is not None and self.ranking.shuffled)
        if cached and shuffled:
            raise ValueError("the shuffled controls need the teacher in process, without top_k and cache")
        if cached and self.loss.kind == "adaptive":
            raise ValueError("loss.kind adaptive needs the teacher in process")
        if self.data.packing and (self.loss.on_policy > 0 or self.warmup is not None):
            raise ValueError("on-policy text and warm-up need rows of one example each: data.packing = false")
        if self.loss.on_policy > 0 and self.training.sharding == "fsdp":
            raise ValueError("a sharded student cannot write text while it learns: loss.on_policy = 0")
        return self


METHODS: Final = ("kd", "warmup", "ranking", "features", "through-time", "wheels", "advise")
_SECTION: Final = {
    "ranking": "ranking",
    "features": "features",
    "warmup": "warmup",
    "through-time": "diffusion",
    "wheels": "wheels",
}
Model = TypeVar("Model", bound=BaseModel)


def read_config(path: Path, method: str) -> DistillConfig:
    """The file's configuration, with the section that `method` needs. Raises CannotDistill."""
    raw = _read(path)
    needed = _SECTION.get(method)
    if needed is not None:
        raw.setdefault(needed, {})
    config = validated(DistillConfig, raw, str(path))
    if method != "through-time" and config.teacher is None:
        raise CannotDistill(
            f'{path}: teacher: missing; {method} needs one, for example [teacher] path = "Qwen/Qwen3-8B"'
        )
    for section in ("ranking", "features", "warmup", "diffusion"):
        if method in ("through-time",) and section != "diffusion" and getattr(config, section) is not None:
            raise CannotDistill(f"{path}: {section}: does not combine with through-time; remove it")
    if method not in ("through-time", "advise") and config.diffusion is not None:
        raise CannotDistill(f"{path}: diffusion: belongs to through-time alone; remove it")
    if method != "wheels" and config.wheels is not None:
        raise CannotDistill(f"{path}: wheels: belongs to tw distill wheels alone; remove it")
    for section in ("ranking", "features", "warmup", "diffusion"):
        if method == "wheels" and getattr(config, section) is not None:
            raise CannotDistill(f"{path}: {section}: does not combine with wheels; remove it")
    if method in ("kd", "ranking", "features") and config.warmup is not None:
        raise CannotDistill(
            f"{path}: warmup: tw distill warmup does it and goes on with distillation; remove it or use that"
        )
    return config


def validated(model: type[Model], raw: Any, where: str) -> Model:
    """`raw` as a `model`; every mistake on a line of its own, by the name it has in the file."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"]) or "the file"
            if problem["type"] == "missing":
                said = "missing"
            elif problem["type"] == "extra_forbidden":
                said = "no such key" + _nearest(model, problem["loc"])
            else:
                said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {name}: {said}")
        raise CannotDistill("\n".join(lines)) from None


def _nearest(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """`; did you mean learning_rate?`, or the names there are."""
    from difflib import get_close_matches

    at: type[BaseModel] = model
    for part in loc[:-1]:
        field = at.model_fields.get(str(part))
        parts = (field.annotation, *getattr(field.annotation, "__args__", ())) if field is not None else ()
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)
        if inner is None:
            return ""
        at = inner
    close = get_close_matches(str(loc[-1]), at.model_fields, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(at.model_fields))}"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CannotDistill(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise CannotDistill(f"{path}: is not UTF-8 text") from None
    try:
        if path.suffix.lower() == ".json":
            raw = json.loads(text)
        elif path.suffix.lower() in (".yaml", ".yml"):
            import yaml  # type: ignore[import-untyped]

            raw = yaml.safe_load(text)
        else:
            raw = tomllib.loads(text)
    except Exception as error:
        # tomllib, json and yaml each raise a class of their own; all say where.
        raise CannotDistill(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise CannotDistill(f"{path}: holds no table of settings")
    return raw
