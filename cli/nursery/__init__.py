"""Forks services from a process that has imported them all once: a service starts in a tenth of its time and shares
its memory with the others. Linux only; elsewhere `cli.processes.spawn` starts each from nothing.

`__main__` is that process, `client` is its parent's side, `order` is what goes between them.
"""
