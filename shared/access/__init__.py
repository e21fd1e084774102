"""Who may do what, how much, and what of it is used: keys, tenants, budgets."""
