"""The kinds of model that may serve, behind one interface.

``base.py`` says what a kind must do; each kind has its own module. ``blend.py`` joins several.
Which kind serves is for ``core/modeling/tuning.py`` to find out.
"""
