"""Knowledge distillation: one lesson for plain divergences, with ranking and features as terms that may join in.

    loss = weight * T^2 * D(teacher || student) + ranking.weight * (1 - Spearman) + features.weight * alignment
           + cross_entropy * NLL of the data's own answers

All per answer token. Hinton et al. 2015 (1503.02531) for T^2: it keeps gradients of one size whatever the temperature.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.distill.batches import Batch, collate
from training.distill.cached import CachedTeacher
from training.distill.config import DistillConfig
from training.distill.examples import Row
from training.distill.features import FeatureTerm
from training.distill.lesson import Lesson
from training.distill.losses.blocks import Head, by_blocks
from training.distill.losses.divergence import divergence, forward_divergence, log_probabilities, top_k_divergence
from training.distill.losses.ranking import agreement_of, ranking_loss
from training.distill.losses.vocabulary import vocabulary_divergence
from training.distill.models import head_of, states
from training.distill.writing import written


class DistillationLesson(Lesson):
    """`teacher`: a model, or cached log-probabilities (`cached_validation` for the rows validation measures)."""

    def __init__(
        self,
        student: Any,
        config: DistillConfig,
        *,
        vocabulary: int,
        pad_id: int,
        eos: int | None,
        teacher: Any = None,
        cached: CachedTeacher | None = None,
        cached_validation: CachedTeacher | None = None,
    ) -> None:
        super().__init__(student)
        if (teacher is None) == (cached is None):
            raise ValueError("either a teacher in process or a cached one")
        self._config, self._vocabulary = config, vocabulary
        self._pad_id, self._eos = pad_id, eos
        # In a tuple, so that it is no module of this one.
        self._teacher = (teacher,)
        self._cached, self._cached_validation = cached, cached_validation
        self.features = None if config.features is None else FeatureTerm(student, teacher, config.features, config.seed)

    # --- whose text --------------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """With `loss.on_policy`, that part of the rows gets an answer of the student's own."""
        share = self._config.loss.on_policy
        if share == 0.0:
            return batch
        draw = torch.rand(len(batch.packs), generator=generator, device=generator.device).tolist()
        chosen = [i for i, value in enumerate(draw) if value < share and batch.packs[i][0].answer_from > 1]
        if not chosen:
            return batch
        context = self._config.data.context
        rows = [batch.packs[i][0] for i in chosen]
        limits = [min(self._config.loss.max_new_tokens, context - len(row.prompt)) for row in rows]
        answers = written(
            self.student,
            [row.prompt for row in rows],
            limits=limits,
            eos=self._eos,
            pad_id=self._pad_id,
            vocabulary=self._vocabulary,
            temperature=1.0,
            generator=generator,
        )
        packs = list(batch.packs)
        for place, row, answer in zip(chosen, rows, answers, strict=True):
            # A prompt that fills the context leaves no room to write; the data's answer stays.
            if answer:
                packs[place] = (replace(row, tokens=(*row.prompt, *answer)),)
        return collate(packs, self._pad_id, self._config.data.padding).to(batch.tokens.device)

    # --- the loss ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        config = self._config
        layers = () if self.features is None else self.features.student_layers
        ours = states(self.student, batch, layers)
        place = batch.predicting()
        s, targets = ours.last[:, :-1][place], batch.targets()
        head = self._head(self.student)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        if self._cached is not None:
            values = self._from_cache(s, head, targets, *self._cached.look_up(batch, s.device))
        else:
            theirs = self._teacher_states(batch)
            t = theirs.last[:, :-1][place]
            if config.loss.shuffled_teacher:
                t = t[torch.randperm(len(t), generator=generator).to(t.device)]
            values = self._from_states(s, head, t, targets, generator)
            if self.features is not None:
                values["features"] = self.features(ours, theirs, batch, generator, self._teacher[0])
        total = config.loss.weight * values["divergence"].sum()
        if config.ranking is not None:
            total = total + config.ranking.weight * values["ranking"].sum()
        if config.features is not None:
            total = total + config.features.weight * values["features"].sum()
        if config.loss.cross_entropy:
            total = total + config.loss.cross_entropy * values["cross_entropy"].sum()
        if config.loss.normaliser:
            total = total + config.loss.normaliser * values["normaliser"].sum()
        return {"loss": total, **{name: value.detach().sum() for name, value in values.items()}}

    def _head(self, model: Any) -> Head:
        return head_of(model, self._vocabulary)

    def _teacher_states(self, batch: Batch) -> Any:
        layers = () if self.features is None else self.features.teacher_layers
        with torch.no_grad():
            return states(self._teacher[0], batch, layers)

    def _from_states(
        self, s: Tensor, head: Head, t: Tensor, targets: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        config, loss = self._config, self._config.loss
        teacher_head = self._head(self._teacher[0])
        heat = loss.temperature
        if config.training.vocabulary_at_once is not None:
            total, _ = vocabulary_divergence(
                s,
                head,
                t,
                teacher_head,
                kind=loss.kind,
                skew=loss.skew,
                temperature=heat,
                words=config.training.vocabulary_at_once,
                tokens=config.training.tokens_at_once,
            )
            found = {"divergence": total[None] * heat**2}
            if loss.cross_entropy:
                found |= by_blocks(s, head, None, None, _cross_entropies(targets), config.training.tokens_at_once)
            return found
        ranking = config.ranking
        noise = (
            torch.rand((len(s), 2 * ranking.k), generator=generator).to(s.device)
            if ranking is not None and ranking.shuffled
            else None
        )

        def per_token(ours: Tensor, theirs: Tensor | None, at: slice) -> dict[str, Tensor]:
            assert theirs is not None
            if loss.kind == "forward":
                value = forward_divergence(theirs, ours, heat) * heat**2
            else:
                both = log_probabilities(theirs, heat), log_probabilities(ours, heat)
                value = divergence(*both, loss.kind, loss.skew) * heat**2
            out = {}
            if ranking is not None:
                out["ranking"], overlap = ranking_loss(
                    theirs,
                    ours,
                    ranking.k,
                    ranking.temperature,
                    on=ranking.on,
                    shuffle=None if noise is None else noise[at],
                )
                if ranking.confidence:
                    out["ranking"] = out["ranking"] * torch.softmax(theirs, -1).max(-1).values
                if ranking.dynamic:
                    value = value * overlap
            out["divergence"] = value
            if loss.cross_entropy:
                out["cross_entropy"] = cross_entropy(ours, targets[at], reduction="none")
            if loss.normaliser:
                out["normaliser"] = torch.logsumexp(ours.float(), -1).square()
            return out

        return by_blocks(s, head, t, teacher_head, per_token, config.training.tokens_at_once)

    def _from_cache(self, s: Tensor, head: Head, targets: Tensor, ids: Tensor, log_p: Tensor) -> dict[str, Tensor]:
        config, loss = self._config, self._config.loss
        ranking = config.ranking

        def per_token(ours: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
            heat = loss.temperature
            value = top_k_divergence(ours, ids[at], log_p[at], loss.kind, loss.skew, heat) * heat**2
            out = {}
            if ranking is not None:
                # What the teacher gives words outside its known top k is not known; they share one low place.
                known = torch.full_like(ours, float(log_p[at].min()) - 10.0).scatter(-1, ids[at], log_p[at])
                out["ranking"], overlap = ranking_loss(
                    known, log_probabilities(ours), ranking.k, ranking.temperature, on=ranking.on
                )
                if ranking.confidence:
                    out["ranking"] = out["ranking"] * log_p[at].max(-1).values.exp()
                if ranking.dynamic:
                    value = value * overlap
            out["divergence"] = value
            if loss.cross_entropy:
                out["cross_entropy"] = cross_entropy(ours, targets[at], reduction="none")
            if loss.normaliser:
                out["normaliser"] = torch.logsumexp(ours.float(), -1).square()
            return out

        return by_blocks(s, head, None, None, per_token, config.training.tokens_at_once)

    # --- validation --------------------------------------------------------------------------------------------------

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of what `compared` gives; from a cache only kl (k + 1 buckets), nll and top1."""
        place, targets = batch.predicting(), batch.targets()
        s = states(self.student, batch).last[:, :-1][place]
        head, tokens = self._head(self.student), self._config.training.tokens_at_once
        if self._cached is not None:
            if self._cached_validation is None:
                raise ValueError("no cached log-probabilities for the validation rows")
            ids, log_p = self._cached_validation.look_up(batch, s.device)

            def of_cache(ours: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
                return {
                    "kl": top_k_divergence(ours, ids[at], log_p[at], "forward"),
                    "nll": cross_entropy(ours, targets[at], reduction="none"),
                    "top1": (ours.argmax(-1) == ids[at][:, 0]).float(),
                }

            found = by_blocks(s, head, None, None, of_cache, tokens)
        else:
            t = states(self._teacher[0], batch).last[:, :-1][place]

            def of_both(ours: Tensor, theirs: Tensor | None, at: slice) -> dict[str, Tensor]:
                assert theirs is not None
                return compared(theirs, ours, targets[at])

            found = by_blocks(s, head, t, self._head(self._teacher[0]), of_both, tokens)
        return {"weight": torch.tensor(float(len(targets)), device=s.device)} | {
            name: value.sum() for name, value in found.items()
        }


def compared(teacher: Tensor, student: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """(N, V) logits of both, (N,) the data's tokens -> (N,) values of everything that validation reports."""
    log_p, log_q = log_probabilities(teacher), log_probabilities(student)
    # One sort of each side serves all three.
    first, second = (side.topk(min(10, side.shape[-1]), dim=-1).indices for side in (log_p, log_q))
    cr3, _ = agreement_of(first[:, :3], second[:, :3])
    cr5, _ = agreement_of(first[:, :5], second[:, :5])
    _, mor10 = agreement_of(first, second)
    return {
        "kl": divergence(log_p, log_q, "forward"),
        "reverse_kl": divergence(log_p, log_q, "reverse"),
        "nll": -log_q.gather(-1, targets[:, None]).squeeze(-1),
        "teacher_nll": -log_p.gather(-1, targets[:, None]).squeeze(-1),
        "entropy": -(log_q.exp() * log_q).sum(-1),
        "teacher_entropy": -(log_p.exp() * log_p).sum(-1),
        "cr3": cr3,
        "cr5": cr5,
        "mor10": mor10,
        "top1": (log_p.argmax(-1) == log_q.argmax(-1)).float(),
    }


def _cross_entropies(targets: Tensor) -> Any:
    def per_token(ours: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
        return {"cross_entropy": cross_entropy(ours, targets[at], reduction="none")}

    return per_token


class LanguageLesson(Lesson):
    """Plain cross-entropy to the data's answers: how a teacher, a judge, or a student without one is trained."""

    def __init__(self, student: Any, *, tokens_at_once: int, smoothing: float = 0.0) -> None:
        super().__init__(student)
        self._tokens, self._smoothing = tokens_at_once, smoothing

    def _values(self, batch: Batch, smoothing: float) -> Tensor:
        s, targets = states(self.student, batch).last[:, :-1][batch.predicting()], batch.targets()

        def per_token(ours: Tensor, _none: Tensor | None, at: slice) -> dict[str, Tensor]:
            return {"nll": cross_entropy(ours, targets[at], reduction="none", label_smoothing=smoothing)}

        return by_blocks(s, head_of(self.student), None, None, per_token, self._tokens)["nll"]

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        del step
        return {"loss": self._values(batch, self._smoothing).sum()}

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        values = self._values(batch, 0.0)
        return {"nll": values.sum(), "weight": torch.tensor(float(len(values)), device=values.device)}


def rows_as_packs(rows: list[Row]) -> list[tuple[Row, ...]]:
    return [(row,) for row in rows]
