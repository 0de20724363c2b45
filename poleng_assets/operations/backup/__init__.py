"""Backup: a whole home in one file, taken while the daemon works, and read back before it is trusted."""
