"""Go from the official archives to a table of figures.

These are the stages of `genseg reproduce`, and the table at its end.
"""
