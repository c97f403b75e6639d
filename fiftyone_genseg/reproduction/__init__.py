"""From the official archives to a table of figures: the stages of `genseg reproduce`, and the table at its end."""
