"""Real requests through a running Segue: what each was taken for, what it cost, how long it took."""
