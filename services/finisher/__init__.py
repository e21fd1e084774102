"""The finisher. Takes settled answers, finishes, deadlines and callbacks; decides what the caller gets.

Sends on the session's turn, the end of the run, and the callback.
"""
