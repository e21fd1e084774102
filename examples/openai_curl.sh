#!/usr/bin/env bash
# Segue by curl, in OpenAI's words. SEGUE_URL: where it is; http://127.0.0.1:8000 if that is not set.
set -euo pipefail
url=${SEGUE_URL:-http://127.0.0.1:8000}/v1
key=(-H "Authorization: Bearer ${SEGUE_API_KEY:-unused}")
ask() { curl -sS --fail-with-body "$url/$1" "${key[@]}" -H 'content-type: application/json' "${@:2}"; }

echo "== what can be asked for"
ask models | tr '}' '\n' | grep -o '"id":"[^"]*"'

echo "== an answer by the whole system"
ask chat/completions -d '{"model": "segue-auto", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
echo

echo "== a stream by one role, with its usage"
ask chat/completions -N -d '{"model": "medium_ai", "stream": true, "stream_options": {"include_usage": true},
  "messages": [{"role": "user", "content": "Say hello"}]}'

echo "== a template: its parameters from metadata, the first that is missing from the message"
ask chat/completions -d '{"model": "template/research_report", "metadata": {"audience": "sailors"},
  "messages": [{"role": "user", "content": "tidal power"}]}' | head -c 400
echo

echo "== begun in the background, then followed to its end"
id=$(ask responses -d '{"model": "segue-auto", "input": "A haiku about night trains", "background": true}' |
  grep -o 'resp_[a-z0-9]*' | head -1)
ask "responses/$id?stream=true&starting_after=1" -N | grep '^event: '
ask "responses/$id" | grep -o '"status":"[a-z]*"' | head -1
