#!/usr/bin/env bash
# What a GPU can tell, in ten minutes; see benchmarks/gpu_parts.py.
#
#     benchmarks/gpu.sh [--device cuda|cpu] [--out FOLDER] [--page FILE] [--tiny]
set -eu
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD"
exec "${PYTHON:-.venv/bin/python}" benchmarks/gpu_parts.py "$@"
