"""The options that every command here has."""

import argparse
from pathlib import Path

from benchmarks.wheels.sizes import SIZES, WheelsSizes


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; proves nothing")
    parser.add_argument("--medium", action="store_true", help="all of Multi30k: the sizes that the figures are of")
    parser.add_argument("--small", action="store_true", help="sizes for one busy core: benchmarks/wheels/sizes.py")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/wheels"))
    parser.add_argument("--pairs", type=Path, default=Path("benchmarks/out/distill"), help="where the pair is kept")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def chosen(arguments: argparse.Namespace) -> tuple[WheelsSizes, Path, Path]:
    """Sizes, the folder of results and that of the pair."""
    size = SIZES[next((name for name in ("quick", "medium", "small") if getattr(arguments, name)), "full")]
    return size, arguments.out / size.name, arguments.pairs / size.name / "translation"
