"""nginx as an upstream that answers every generation with the same bytes: far quicker than anything in front of it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import StartFailed, free_port, serving

ANSWER = (
    "The train leaves at nine and needs two hours and a half, so it arrives at half past eleven. "
    "You have twenty minutes to change platforms."
)
CONFIG = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location = /v1/models {{ return 200 '{models}'; }}
    location = /v1/chat/completions {{ return 200 '{answer}'; }}
    location = /health {{ return 200 'ok'; }}
    location / {{ return 404; }}
  }}
}}
"""


def chat_completion(*, logprobs: bool) -> str:
    """A whole answer as vLLM writes it; with `logprobs`, one entry per word, as a draft that is judged carries."""
    words = ANSWER.split(" ")
    content = [
        {"token": word, "logprob": -0.07 * (i % 5), "bytes": list(word.encode()), "top_logprobs": []}
        for i, word in enumerate(words)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": ANSWER},
        "logprobs": {"content": content} if logprobs else None,
        "finish_reason": "stop",
        "stop_reason": None,
    }
    usage = {"prompt_tokens": 98, "completion_tokens": len(words), "total_tokens": 98 + len(words)}
    return json.dumps(
        {
            "id": "chatcmpl-5f2c8ad1b7e94d0f",
            "object": "chat.completion",
            "created": 1790000000,
            "model": "fixed",
            "choices": [choice],
            "usage": usage,
        }
    )


@contextmanager
def fixed_upstream(folder: Path, *, logprobs: bool) -> Iterator[str]:
    """Runs nginx; yields its base URL without /v1. Raises StartFailed where nginx is not installed."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        raise StartFailed("nginx is not installed; on Debian and Ubuntu: apt install nginx-light")
    port = free_port()
    answer = chat_completion(logprobs=logprobs)
    if "'" in answer or "$" in answer:
        raise ValueError("the fixed answer must hold neither ' nor $: both mean something to nginx")
    models = json.dumps({"object": "list", "data": [{"id": "fixed", "object": "model", "owned_by": "nginx"}]})
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, answer=answer, models=models))
    url = f"http://127.0.0.1:{port}"
    with serving([program, "-p", str(folder), "-c", str(config)], f"{url}/health", folder / "nginx.out"):
        yield url
