#!/usr/bin/env bash
# aider (https://aider.chat) mends a file through Segue: `pip install aider-chat`, Segue at SEGUE_URL, models that can program.
# Where a model on this machine needs longer than five minutes, raise `orchestration.defaultTimeoutSeconds`.
set -euo pipefail
url=${SEGUE_URL:-http://127.0.0.1:8000}/v1
model=${1:-segue-auto}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > calculator.py <<'PY'
def mean(numbers):
    """Return the arithmetic mean of some numbers."""
    total = 0
    for number in numbers:
        total -= number
    return total / len(numbers)
PY

OPENAI_API_BASE=$url OPENAI_API_KEY=${SEGUE_API_KEY:-unused} aider --model "openai/$model" --edit-format whole --no-stream \
  --timeout 3000 --yes-always --no-git --no-check-update --no-show-model-warnings --analytics-disable --no-auto-lint --map-tokens 0 \
  --message 'mean([1, 2, 3]) returns -2.0 and should return 2.0. Correct calculator.py.' calculator.py

cat calculator.py
python3 -c 'from calculator import mean; assert mean([1, 2, 3]) == 2.0, mean([1, 2, 3]); print("it is mended")'
