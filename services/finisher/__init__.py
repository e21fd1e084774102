"""The finisher. Takes settled answers, finishes and deadlines; decides what the caller gets.

Sends on the session's turn and the end of the run.
"""
