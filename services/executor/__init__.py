"""The executor: the one door for models. Takes calls; decides which model, when, and whether again.

Sends on the settled call, as a fact on the log that whoever goes on consumes. Nobody else holds a provider's key.
"""
