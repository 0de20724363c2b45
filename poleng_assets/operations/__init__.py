"""Operations on a complete home: backup, restore, erasure of a person, retention, reset."""
