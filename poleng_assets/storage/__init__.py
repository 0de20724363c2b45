"""Where things lie: the home folder, its files, and what was dropped into its landing folders."""
