"""From the last lines of an engine's log to a sentence that says why it died and what to do."""

import re
import signal
from collections.abc import Sequence

# In this order: the first that is found wins. Texts are those of vLLM, transformers, torch and Python.
_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"No module named '?vllm\b"),
        "vLLM is not installed in this interpreter; install it in an environment of its own "
        "(`pip install vllm`; without a GPU: deploy/vllm-cpu-env.sh) and name it with --vllm-python or TW_VLLM_PYTHON",
    ),
    (
        re.compile(r"No module named '?(torch|transformers|safetensors)\b"),
        'this model needs torch and transformers; install them with `pip install "training-wheels[embedded]"`',
    ),
    (
        re.compile(r"[Aa]ddress already in use|error while attempting to bind"),
        "the port is taken; stop what listens there or choose another port",
    ),
    (
        re.compile(
            r"out of memory|OutOfMemoryError|No available memory for the cache blocks|less than desired GPU memory"
        ),
        "there is not enough memory; free some, give the model a smaller context (--max-model-len), or lower "
        "--gpu-memory-utilization",
    ),
    (
        re.compile(
            r"[Cc]an'?t load tokenizer|Couldn't instantiate the backend tokenizer|Tokenizer class .* does not exist"
        ),
        "the model has no tokenizer that can be loaded; save it beside the weights with `tokenizer.save_pretrained`",
    ),
    (
        re.compile(r"SafetensorError|Error while deserializing header|incomplete metadata"),
        "the weights are damaged; copy the model again",
    ),
    (
        re.compile(
            r"is not a local folder and is not a valid model identifier|RepositoryNotFoundError|401 Client Error"
        ),
        "there is no such model on the hub, or it needs a login (HF_TOKEN); check the name",
    ),
    (
        re.compile(r"couldn't connect to 'https://huggingface|OfflineModeIsEnabled|LocalEntryNotFoundError"),
        "the model is not on this machine and the hub cannot be reached; download it first and give its directory",
    ),
    (
        re.compile(r"does not appear to have a file named|no file named .*\.safetensors"),
        "the model directory is incomplete; copy the model again",
    ),
    (
        re.compile(r"unrecognized arguments?:.*|invalid choice:.*"),
        "the engine does not know one of its arguments; check the extra engine arguments",
    ),
)
_EXCEPTION = re.compile(r"\b([A-Z]\w*(?:Error|Exception): .+)")
# What vLLM's processes say about one another; the cause stands above.
_ECHO = re.compile(r"EngineDeadError|EngineCore encountered|initialization failed|Worker failed with|root cause")
_OWN_LINE = re.compile(r"^error: (.+)$")


def diagnose(log: Sequence[str], exit_code: int | None) -> str:
    """One sentence. `exit_code` as a shell says it: 128 + n after signal n; None where the process still runs."""
    for line in reversed(log):
        own = _OWN_LINE.match(line.strip())
        if own:
            return own[1]
    text = "\n".join(log)
    for pattern, cause in _CAUSES:
        if pattern.search(text):
            return cause
    if exit_code is None:
        return "it did not become ready in time"
    if exit_code == 128 + signal.SIGKILL:
        return "it was killed (SIGKILL); where nobody did that, the machine ran out of memory"
    if exit_code > 128:
        return f"it died of signal {exit_code - 128}"
    for line in reversed(log):
        raised = _EXCEPTION.search(line)
        if raised and not _ECHO.search(line):
            return f"it exited with status {exit_code} after {raised[1][:300]}"
    return f"it exited with status {exit_code}"
