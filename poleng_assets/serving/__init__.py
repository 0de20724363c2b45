"""``poleng serve``: the champion behind HTTP, for one person or a few at a time.

What belongs here reads and never writes: the graph decides who serves, and this follows. Nothing that was
asked is kept, logged, or told to anybody but the one who asked: answers of people are special-category data.
"""
