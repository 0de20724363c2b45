"""Contact lists, and why a person is on one."""
