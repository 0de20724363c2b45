"""Rows in quarantine: their faults, the sheet to correct them in, and their release."""
