"""The options of `tw collect` that may be given once for each of several teachers."""

from typing import Any

from training.collecting import CannotCollect


def per_teacher(
    urls: tuple[str, ...],
    models: tuple[str, ...],
    keys: tuple[str, ...],
    prices: tuple[tuple[float, float], ...],
    labels: tuple[str, ...],
    *,
    student: str,
) -> list[tuple[str | None, str, str, tuple[float, float] | None, str | None]]:
    """Options of each teacher, in the order given: (url, model, variable of the key, price, label). Of several, each
    has a model's name, and what else is given once holds for all. Raises CannotCollect."""
    count = max(len(urls), len(models), 1)
    if count == 1:
        first = (urls or (None,))[0], (models or ("teacher",))[0], (keys or ("TW_TEACHER_API_KEY",))[0]
        return [(*first, (prices or (None,))[0], None)]
    given = {"--teacher-url": urls, "--teacher-key-env": keys, "--teacher-price": prices}
    for name, values in given.items():
        if len(values) not in (0, 1, count):
            raise CannotCollect(f"{name} is given {len(values)} times for {count} teachers; give it once, or for each")
    if len(models) != count or len(labels) not in (0, count):
        raise CannotCollect(f"{count} teachers: give --teacher-model for each, --teacher-label for each or for none")
    names = labels or models
    if len(set(names)) < count or student in names:
        raise CannotCollect(
            f"teachers called {', '.join(names)}: give each a --teacher-label of its own, not the student's name"
        )

    def each(values: Any, default: Any) -> Any:
        return values if len(values) == count else [*values, default][:1] * count

    return list(zip(each(urls, None), models, each(keys, "TW_TEACHER_API_KEY"), each(prices, None), names, strict=True))
