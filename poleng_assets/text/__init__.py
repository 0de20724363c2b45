"""Text for people: what others wrote stays text, on a console and in Markdown."""
