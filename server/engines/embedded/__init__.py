"""The embedded engine: an OpenAI-compatible server for one small model, in a process of its own, without a GPU.

    python -m server.engines.embedded --model DIR --served-model-name student --port 8101

Two threads share the work. The HTTP side (`app`, `requests`, `responses`) turns bodies into jobs and events into bytes.
The generation side (`scheduler`) owns the model: at every step each running sequence gets one token, sequences join
and leave between steps. Only `loading`, `cache`, `runner` and `llama` import torch; the scheduler sees numpy arrays
through the `Runner` protocol (`sampler.py`), so that another runtime could stand there.
"""
