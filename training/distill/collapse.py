"""Alarms: a student that says the same thing over and over, or stops at once, can still have a fine loss."""

from collections.abc import Sequence

Tokens = Sequence[int]


def distinct_n(texts: Sequence[Tokens], n: int) -> float:
    """Different n-grams over all n-grams; 0 where there is none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def mean_length(texts: Sequence[Tokens]) -> float:
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def alarms(
    student: Sequence[Tokens],
    reference: Sequence[Tokens],
    entropy: float | None = None,
    teacher_entropy: float | None = None,
) -> list[str]:
    """What looks like collapse, in words; nothing where all is well."""
    found = []
    ours, theirs = distinct_n(student, 2), distinct_n(reference, 2)
    if theirs > 0 and ours < 0.5 * theirs:
        found.append(
            f"the student repeats itself: {ours:.2f} of its word pairs are new, {theirs:.2f} of the reference's"
        )
    length, wanted = mean_length(student), mean_length(reference)
    if wanted > 0 and not 0.5 <= length / wanted <= 2.0:
        found.append(f"answers of {length:.1f} tokens where the reference has {wanted:.1f}")
    if entropy is not None and teacher_entropy is not None and entropy < 0.25 * teacher_entropy:
        found.append(f"the student's entropy is {entropy:.2f} nats, the teacher's {teacher_entropy:.2f}")
    return found
