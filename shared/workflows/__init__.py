"""Pure decisions about workflows that more than one service takes: is it valid, what does a prompt become."""
