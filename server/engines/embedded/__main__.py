"""The command line of the embedded engine. Exits 1 with one line that begins with `error:` when it cannot start."""

import argparse
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from server.engines.spec import UnusableWeights
from server.engines.weights import check_directory, default_threads

logger = logging.getLogger("server.engines.embedded")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    faulthandler.enable()
    try:
        # Both before the seconds that importing torch takes. Nobody can connect until `listen`.
        check_directory(options.model)
        listener = _bind(options.host, options.port)
        return _serve(options, listener)
    except (UnusableWeights, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except ImportError as error:
        print(
            f"error: {options.model} needs torch and transformers ({error}); install them with "
            '`pip install "training-wheels[embedded]"`',
            file=sys.stderr,
            flush=True,
        )
        return 1


def _serve(options: argparse.Namespace, listener: socket.socket) -> int:
    began = time.monotonic()
    threads = options.threads or default_threads(options.model)
    for library in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM"):  # read when numpy is imported, which is below
        os.environ[f"{library}_THREADS" if "_" in library else f"{library}_NUM_THREADS"] = str(threads)
    import uvicorn

    from server.engines.embedded.app import Engine, create_engine_app
    from server.engines.embedded.jobs import Delivery
    from server.engines.embedded.llama import LlamaRunner
    from server.engines.embedded.loading import load
    from server.engines.embedded.masked import Denoiser, MaskedScheduler
    from server.engines.embedded.prefixes import Prefixes
    from server.engines.embedded.requests import Model
    from server.engines.embedded.scheduler import Scheduler

    loaded = load(options.model, options.dtype, options.max_model_len, threads)
    model = Model(
        names=tuple(options.served_model_name or [options.model]),
        tokens=loaded.tokens,
        vocab_size=loaded.runner.vocab_size,
        context=loaded.runner.context,
        defaults=loaded.defaults,
    )
    runner = loaded.runner
    if options.prefix_cache_mb and isinstance(runner, LlamaRunner):
        runner.prefixes = Prefixes(options.prefix_cache_mb << 20)
    rest: dict[str, Any] = {"max_batch": options.max_batch, "max_waiting": options.max_waiting}

    def make_scheduler(deliver: Callable[[list[Delivery]], None]) -> Scheduler:
        if isinstance(runner, Denoiser):
            return MaskedScheduler(runner, loaded.tokens.decode, loaded.eos, deliver, **rest)
        return Scheduler(runner, loaded.tokens.decode, loaded.eos, deliver, **rest)

    engine = Engine(model, make_scheduler)
    config = uvicorn.Config(
        create_engine_app(engine),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,
    )
    logger.info(
        "%s: %.1f M parameters, %d tokens of context, ready after %.1f s on http://%s:%d",
        options.model,
        loaded.parameters / 1e6,
        model.context,
        time.monotonic() - began,
        *listener.getsockname()[:2],
    )
    # Everything so far lives as long as the process; the collector need not walk through it in the middle of a step.
    gc.collect()
    gc.freeze()
    # The loop and the generation thread hand the interpreter over often; 5 ms would be a step of a tiny model.
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise OSError(
            f"port {port} on {host} is taken ({error.strerror}); stop what listens there or choose another"
        ) from None
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m server.engines.embedded", description=__doc__)
    parser.add_argument("--model", required=True, help="a model directory, or a name on the Hugging Face hub")
    parser.add_argument(
        "--served-model-name", nargs="+", metavar="NAME", help="names to serve it under; first: its answers"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--max-batch", type=int, default=16, help="sequences that run at the same time")
    parser.add_argument(
        "--max-waiting", type=int, default=1024, help="sequences that may wait; more are refused with 503"
    )
    parser.add_argument("--max-model-len", type=int, help="tokens of context; default: what the model has")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument(
        "--prefix-cache-mb", type=int, default=0, help="memory for texts that prompts may go on from; plain Llamas only"
    )
    parser.add_argument("--threads", type=int, help="default: 1 below 200 MB of weights, else half of the cores")
    return parser


if __name__ == "__main__":
    sys.exit(main())
