"""One person in rows and files: recognising, erasing, proving."""
