"""The study: its questions, and all policies."""
