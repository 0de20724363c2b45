"""``poleng``: one module a command."""
