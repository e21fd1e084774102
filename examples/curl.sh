#!/bin/sh
# The API with nothing but curl. SEGUE_URL says where; SEGUE_API_KEY is sent where there is one.
set -eu
url="${SEGUE_URL:-http://127.0.0.1:8000}"
call() { curl --silent --show-error --fail-with-body ${SEGUE_API_KEY:+-H "Authorization: Bearer $SEGUE_API_KEY"} "$@"; echo; }

echo "== an answer, under a key: sent again, it is the same answer and costs nothing"
call "$url/chat" -H 'Content-Type: application/json' -H "Idempotency-Key: example-$$" -d '{"message": "What is two plus two?"}'
call "$url/chat" -H 'Content-Type: application/json' -H "Idempotency-Key: example-$$" -d '{"message": "What is two plus two?"}'

echo "== a workflow of two steps"
call "$url/workflow" -H 'Content-Type: application/json' -d '{
  "workflow": [{"type": "graph", "tasks": [
    {"model": "fast_ai", "prompt": "Three facts about {topic}", "output_variable": "facts"},
    {"model": "medium_ai", "prompt": "A limerick from these: {facts}", "output_variable": "limerick"}]}],
  "variables": {"topic": "otters"}}'

echo "== as it is written"
call --no-buffer "$url/chat" -H 'Content-Type: application/json' -d '{"message": "Say hello", "stream": true}'

echo "== what it has cost"
call "$url/usage?by=model"
