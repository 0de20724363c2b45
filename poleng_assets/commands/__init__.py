"""Commands of ``poleng`` that stand in a module of their own; ``cli.py`` adds them."""
