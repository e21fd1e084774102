"""The history: runs and their calls in SQL, for lists, searches and sums. A projection of the log, rebuilt at will.

It decides nothing: what counts about one run is read from the log. SQLite by default, PostgreSQL by URL.
"""
