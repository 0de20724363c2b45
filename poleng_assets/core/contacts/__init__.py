"""Contact lists, and why somebody stands in one."""
