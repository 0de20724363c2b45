"""The study: what is asked, of whom, and every number that decides."""
