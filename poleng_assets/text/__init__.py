"""Safe display of untrusted text, on a console and in Markdown."""
