"""Rows in quarantine: what is wrong with them, a sheet to mend them in, and how mended rows are put back."""
