"""The categorizer. Takes requests; decides L, M, H or denied: rules first, then the Categorizer AI.

Sends on a call (L, M), a plan request (H) or a finish (denied).
"""
