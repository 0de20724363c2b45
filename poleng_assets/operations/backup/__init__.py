"""Backup: a complete home in one file, made while the daemon runs, and verified by reading it back."""
