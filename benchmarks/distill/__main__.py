"""What each distillation buys: `python -m benchmarks.distill --method M [--quick | --small | --medium] [--seeds N]`.

    warmup, ranking, features   Multi30k, against their own ablations
    warmup-short, warmup-own    warm-up before a quarter of the steps; and of as many on the student's own texts
    warmup-few                  before as many over few rows, again and again
    through-time                tinyshakespeare and sums
    trl                         beside TRL's GKD trainer, where it is installed
    memory                      peak memory of the loss at a vocabulary of 150,000
    summary                     one table over all methods on Multi30k

Runs in the background: every arm writes its JSON when it is done, an arm that has one is not run again, and one that
was interrupted goes on from its checkpoint. Needs Multi30k and tinyshakespeare under --data/text (nothing is
downloaded), and sacrebleu for BLEU and chrF.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.distill import arms, diffusion, diffusion_sizes, memory, tables, translation, trl_gkd
from benchmarks.distill.sizes import FULL, MEDIUM, QUICK, SMALL
from training.distill.report import versions, write_json

METHODS = (
    "warmup", "warmup-short", "warmup-own", "warmup-few", "ranking", "features", "through-time", "memory", "summary",
    "trl",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; proves nothing")
    parser.add_argument("--small", action="store_true", help="sizes for one busy core: benchmarks/distill/sizes.py")
    parser.add_argument("--medium", action="store_true", help="sizes that the figures in docs/distill are of")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arm", help="only this arm and kd, with all seeds; through-time: exact, sums or shakespeare")
    parser.add_argument("--after-kd", action="store_true", help="warmup, ranking, features: begin with kd's student")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/distill"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    asked = [name for name in ("quick", "small", "medium") if getattr(arguments, name)]
    if len(asked) > 1:
        parser.error(f"--{asked[0]} or --{asked[1]}, not both")
    size = asked[0] if asked else "full"
    sizes = {"full": FULL, "medium": MEDIUM, "small": SMALL, "quick": QUICK}[size]
    seeds = 1 if arguments.quick else arguments.seeds
    work = arguments.out / size
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

    if arguments.method == "memory":
        results, columns = memory.run(arguments.quick), dict(memory.COLUMNS)
    elif arguments.method == "through-time":
        results, columns = (
            diffusion.run(arguments.data, work / "diffusion", diffusion_sizes.BY_NAME[size], seeds, arguments.arm, say),
            dict(diffusion.COLUMNS),
        )
    elif arguments.method == "trl":
        results, columns = (
            trl_gkd.run(arguments.data, work / "translation", sizes, seeds, say),
            dict(trl_gkd.COLUMNS),
        )
    else:
        results = translation.run(
            arguments.method,
            arguments.data,
            work / "translation",
            sizes,
            seeds,
            arguments.arm,
            say,
            after_kd=arguments.after_kd,
        )
        columns = {**arms.COLUMNS[arguments.method], **arms.ALL}
    name = arguments.method + ("-after-kd" if arguments.after_kd else "")
    text = tables.table(results, columns)
    if "kd" in results:
        text += "\n\n" + tables.paired(results, columns, "kd")
    print(text)
    write_json(
        work / f"{name}.json",
        {
            "method": arguments.method, "size": size, "seeds": seeds, "versions": versions(),
            "threads": arguments.threads, "seconds": time.monotonic() - began, "results": results,
        },
    )  # fmt: skip
    (work / f"{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
