"""What of the teacher's help can be foreseen: `python -m benchmarks.wheels.foresight [--medium] [--seeds N]`.

Both models along texts as they are served under a sentence, asked for where the student asks; at every state what the
teacher's word gains, p(t) - p(v) of the student's own word v. Per share and way to rank states: the part of all that
gain which lies in the states ranked first. Ways that are fitted (linear maps, a row) learn on spliced prompts, which
nobody was trained on with answers, and are measured on test sentences. Run benchmarks.wheels before: its student is
what this looks at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.distill.tables import cell
from benchmarks.wheels.arms import SHARES, WHEELS, made, pair_of
from benchmarks.wheels.measuring import AT_ONCE, LIMIT, Bench, bench_of
from benchmarks.wheels.options import chosen, parser_of
from benchmarks.wheels.sizes import WheelsSizes
from training.distill.losses.path_consistency import known_log_p, surer
from training.distill.models import head_of
from training.distill.report import write_json
from training.distill.wheels.collecting import Models
from training.distill.wheels.mixing import by_help, mixed
from training.distill.wheels.prompts import Example, read_prompts, restricted
from training.distill.wheels.restrictions import TRAINED, Restriction
from training.distill.wheels.row import decided, read_states

PROMPTS = 2_500
RIDGE = 1e-5
RANKINGS = ("score of <help>", "largest logit", "largest probability", "linear map", "row of that level", "truth")


def seen(bench: Bench, examples: Sequence[Example], restriction: Restriction) -> dict[str, Tensor]:
    """name -> (N, ...) of all states of the texts: `state`, `logit` (the largest), `log_q` (of the likeliest word),
    `entropy`, `score` (of `<help>`), `gain` (p(t) - p(v))."""
    models = Models(bench.student, bench.teacher, bench.tokenizer, bench.vocabulary, bench.help_id, pad_id=0, eos=1)
    head = head_of(bench.student, bench.vocabulary)
    found: dict[str, list[Tensor]] = {}
    ordered = sorted(examples, key=lambda one: len(one.prompt))
    for start in range(0, len(ordered), AT_ONCE):
        some = ordered[start : start + AT_ONCE]
        prompts = [restricted(one, restriction, bench.config, bench.tokenizer) for one in some]
        texts = mixed(
            bench.student, bench.teacher, prompts, [one.prompt for one in some], by_help(),
            limits=[max(1, min(LIMIT, bench.context - len(one.prompt))) for one in some], eos=1, pad_id=0,
            vocabulary=bench.vocabulary, help_id=bench.help_id, top_k=32,
        )  # fmt: skip
        read = zip(*read_states(models, prompts, [text.tokens for text in texts]), strict=True)
        state, logit = (torch.cat(part) for part in read)
        with torch.no_grad():
            log_q = torch.log_softmax(head.logits(state), -1)
        own = torch.cat([torch.tensor(text.own) for text in texts])
        ids, log_p = torch.cat([text.top_ids for text in texts]), torch.cat([text.top_log_p for text in texts])
        parts = {
            "state": state,
            "logit": logit,
            "log_q": log_q.max(-1).values,
            "entropy": -(log_q.exp() * log_q).sum(-1),
            "score": torch.cat([text.score for text in texts]),
            "gain": surer(known_log_p(own, ids, log_p), log_p[:, 0]),
        }
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
    return {name: torch.cat(parts) for name, parts in found.items()}


def mapped(fit: dict[str, Tensor], on: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The gain of `fit` and `on` as a linear map of state, logit, log-probability and entropy foresees it."""

    def read(one: dict[str, Tensor]) -> Tensor:
        more = torch.stack([one["logit"], one["log_q"], one["entropy"], torch.ones_like(one["logit"])], -1)
        return torch.cat([one["state"], more], -1).double()

    ours = read(fit)
    square = ours.T @ ours + RIDGE * len(ours) * torch.eye(ours.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(square, ours.T @ fit["gain"].double())
    return ours @ weight, read(on) @ weight


def captured(gain: Tensor, ranking: Tensor, share: float) -> float:
    """Part of all `gain` (N,) in the `share` of states that `ranking` (N,) puts first."""
    first = ranking.argsort(descending=True)[: round(share * len(gain))]
    return float(gain[first].sum() / gain.sum())


def at_level(bench: Bench, prompts: Sequence[Example], share: float) -> dict[str, float]:
    restriction = Restriction(share, TRAINED[0])
    fit, on = seen(bench, prompts, restriction), seen(bench, bench.test, restriction)
    theirs, foreseen = mapped(fit, on)
    price = torch.quantile(theirs, 1 - share).float().expand(len(fit["gain"]))
    row = decided(fit["state"], fit["logit"], fit["gain"], price, torch.zeros(fit["state"].shape[1]))
    rankings = (on["score"], -on["logit"], -on["log_q"], foreseen, on["state"] @ row - on["logit"], on["gain"])
    return {name: captured(on["gain"], ranking, share) for name, ranking in zip(RANKINGS, rankings, strict=True)}


def run(data: Path, pairs: Path, work: Path, size: WheelsSizes, seed: int, count: int) -> dict[str, Any]:
    pair = pair_of(data, pairs, work, size, seed)
    student, _ = made(WHEELS, pair, work, size, seed)
    bench = bench_of(student, pair, size)
    prompts, _ = read_prompts([pair["prompts"]], bench.config, bench.tokenizer, bench.context - 2, 0)
    return {f"{share:g}": at_level(bench, prompts[:count], share) for share in SHARES}


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [f"| ranked by | {' | '.join(f'{share:.0%}' for share in SHARES)} |", "|---|" + "---|" * len(SHARES)]
    for name in RANKINGS:
        cells = [cell([100 * one[f"{share:g}"][name] for one in found], 0) for share in SHARES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="how many to fit on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size, work, pairs = chosen(arguments)
    found = []
    for seed in range(arguments.seeds):
        found.append(run(arguments.data, pairs, work, size, seed, arguments.prompts))
        write_json(work / f"foresight-{seed}.json", found[-1])
    print(table(found))


if __name__ == "__main__":
    main()
