"""The front door for OpenAI's clients: `/v1/models`, `/v1/chat/completions`, `/v1/responses`. (ADR 0020)

What is asked becomes a run like any other; translation in and out is pure, `following` does what waits and writes.
"""
