"""What can be changed while the system runs, over what the configuration file says: templates and their schedules.

Read from the registry's leader whenever it counts, so that a change counts everywhere at once.
"""
