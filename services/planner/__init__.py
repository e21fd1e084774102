"""The planner. Takes plan requests, workflows and settled tasks; decides the workflow and which tasks are ready.

Sends on calls, and a finish when the workflow is through.
"""
