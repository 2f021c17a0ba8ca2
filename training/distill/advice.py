"""What `tw distill advise` says about what it measured: the rules of thumb, with their limits, and the words.

What each rule is worth is on docs/distill/advise.md, beside what the methods did for the pairs they were tried on.
"""

from typing import Any

# Rules of thumb: where a signal begins to speak for a method.
REFUSED = 0.05
OWN_TEXT_FARTHER = 1.3
# Ranking gained most where a quarter of the places were undecided; far below that the order is noise, it is thought.
UNDECIDED = 0.1
OVERLAP = 0.8
# Of directions. Features brought nothing at 0.59, to a student that was trained already, and much at 0.32, to one that
# had learned nothing yet.
ALIKE = 0.5
CLOSE_KL = 0.02
HUNGRY_NATS = 0.1


def priced(report: dict[str, Any], usd_per_hour: float) -> dict[str, Any]:
    """The report with money, at so many dollars per hour of this machine."""
    told = report["measured"].get("serving")
    if told is not None:
        for role in ("student", "teacher"):
            told[role]["usd_per_million_tokens"] = told[role]["seconds_per_million_tokens"] / 3600 * usd_per_hour
        told["usd_saved_per_million_tokens"] = (
            told["teacher"]["usd_per_million_tokens"] - told["student"]["usd_per_million_tokens"]
        )
    cost = report["measured"].get("cost")
    if cost is not None:
        for of in cost.values():
            if isinstance(of, dict):
                of["usd"] = of["hours"] * usd_per_hour
    return report


def diffusion_advice(steps: dict[str, Any]) -> dict[str, Any]:
    few, most = min(steps, key=int), max(steps, key=int)
    gap = steps[few]["teacher_nll"] - steps[most]["teacher_nll"]
    return {
        "method": "through-time",
        "speaks_for_it": gap > HUNGRY_NATS,
        "because": f"in {few} steps its text costs the teacher {gap:+.2f} nats per token more than in {most}",
        "check": "likelihood rewards dull text: compare entropies, and a temperature that matches them",
    }


def advice(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """What the numbers speak for, strongest first; `kd` is what all are compared with."""
    distance, own, hidden, cost = (measured[name] for name in ("distance", "own_text", "hidden", "cost"))
    kl = distance["kl"]
    told = [
        {
            "method": "kd",
            "speaks_for_it": kl > CLOSE_KL,
            "because": f"KL(teacher || student) is {kl:.3f} nats per token"
            + ("" if kl > CLOSE_KL else "; the student is there already, little is left to win"),
            "check": "the others must beat it at equal compute",
        },
        {
            "method": "ranking",
            "speaks_for_it": distance["undecided"] > UNDECIDED and distance["mor10"] < OVERLAP,
            "because": f"the teacher has no word above one half at {distance['undecided']:.0%} of the places, and the "
            f"ten likeliest words overlap by {distance['mor10']:.0%}",
            "check": "MOR@10 and CR@5 on held-out text, and that perplexity does not rise",
        },
        {
            "method": "features",
            "speaks_for_it": hidden["cka_last"] < ALIKE,
            "because": f"directions of the last hidden states have a CKA of {hidden['cka_last']:.2f}, norms stand at "
            f"{hidden['norm_ratio_last']:.2f}",
            "check": "a first and a last pair of layers, at the prompt's places too; shuffled states must lose",
        },
    ]
    if own is not None:
        farther = own["reverse_kl"] / max(distance["reverse_kl"], 1e-9)
        told.append(
            {
                "method": "warmup",
                "speaks_for_it": own["refused_share"] > REFUSED and farther > OWN_TEXT_FARTHER,
                "because": f"the teacher refuses {own['refused_share']:.1%} of the student's tokens (top "
                f"{own['top_k']}), and on the student's own text the reverse KL is {farther:.1f} times the data's",
                "check": "against KD with the same extra steps",
            }
        )
    for one in told:
        timed = cost.get(one["method"]) or cost["kd"]
        one["hours"] = timed["hours"]
        if one["method"] == "warmup":
            one["because"] += "; writing and correcting come on top of the hours"
    return sorted(told, key=lambda one: not one["speaks_for_it"])


def in_words(report: dict[str, Any]) -> str:
    measured = report["measured"]
    lines = [f"student {measured['student_parameters']:,} parameters, teacher {measured['teacher_parameters']:,}"]
    distance = measured.get("distance")
    if distance is not None:
        lines.append(
            f"on {distance['tokens']:,} tokens: KL {distance['kl']:.3f}, reverse {distance['reverse_kl']:.3f}, same "
            f"first word {distance['top1']:.0%}, MOR@10 {distance['mor10']:.0%}, teacher undecided at "
            f"{distance['undecided']:.0%}"
        )
    serving_told = measured.get("serving")
    if serving_told is not None:
        ours, theirs = serving_told["student"], serving_told["teacher"]
        lines.append(
            f"per million tokens on this machine: {ours['seconds_per_million_tokens']:,.0f} s against "
            f"{theirs['seconds_per_million_tokens']:,.0f} s; weights {ours['weights_mb']:,.1f} MB against "
            f"{theirs['weights_mb']:,.1f} MB"
        )
        if "usd_per_million_tokens" in ours:
            lines.append(
                f"that is ${ours['usd_per_million_tokens']:.4f} against ${theirs['usd_per_million_tokens']:.4f}"
            )
    for one in report["advice"]:
        hours = f", about {one['hours']:.2f} h here" if "hours" in one else ""
        lines.append(
            f"{'+' if one['speaks_for_it'] else '-'} {one['method']}{hours}: {one['because']}. Check: {one['check']}."
        )
    return "\n".join(lines)
