"""What is done to a whole home: backup, restore, erasure of a person, retention, reset."""
