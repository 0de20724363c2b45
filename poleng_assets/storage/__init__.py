"""The home folder: its files, its study, and its landing folders."""
