"""The gateway takes HTTP requests and answers them.

It decides who asks and whether the request is well-formed, sends a chat message to the categorizer or a ready
workflow to the planner, hears the run's end from the log and answers its caller. It remembers nothing: another
copy can answer for a run that this one bore.
"""
