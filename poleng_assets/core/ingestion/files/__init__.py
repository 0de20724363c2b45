"""Reading dropped files: from bytes to numbered rows."""
