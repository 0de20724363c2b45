"""``poleng``: one module per command."""
