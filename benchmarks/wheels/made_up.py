"""A made-up language pair in the shape of Multi30k, for machines without it: word for word from a small dictionary,
with the adjective behind its noun and a verb that depends on the subject, so that a small student errs."""

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

NOUNS = [
    a + b for a in ("bal", "kor", "mir", "tes", "lun", "dap", "fen", "gro") for b in ("o", "ik", "und", "er", "as")
]
VERBS = [a + b for a in ("zi", "pra", "wol", "ne") for b in ("ten", "ket", "rum")]
COLOURS = ["rot", "blau", "weit", "alt", "klein"]


def _sentence(draw: random.Random) -> tuple[str, str]:
    german, english = [], []
    for _ in range(draw.randrange(1, 4)):
        noun, verb, colour, other = (draw.choice(w) for w in (NOUNS, VERBS, COLOURS, NOUNS))
        german.append(f"{colour} {noun} {verb} {other}")
        ending = "s" if noun[-1] in "ok" else ""
        english.append(f"the {noun[::-1]} {colour[::-1]} {verb[::-1]}{ending} a {other[::-1]}")
    return " und ".join(german) + ".", " and ".join(english) + "."


def write_pairs(folder: Path, split: str, pairs: Sequence[tuple[str, str]]) -> None:
    """text/multi30k.{split}.de.gz and .en.gz under `folder`, as Multi30k lies there, unless they are there already."""
    for index, language in enumerate(("de", "en")):
        file = folder / "text" / f"multi30k.{split}.{language}.gz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(file, "wt", encoding="utf-8") as out:
                out.write("\n".join(pair[index] for pair in pairs) + "\n")


def made_up(folder: Path) -> Path:
    """Writes the splits under `folder` and returns it; the same every time."""
    for split, count in (("train", 4_000), ("val", 200), ("test_2016_flickr", 200)):
        draw = random.Random(split)
        write_pairs(folder, split, [_sentence(draw) for _ in range(count)])
    return folder
