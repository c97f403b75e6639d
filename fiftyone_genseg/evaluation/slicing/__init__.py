"""Find where a model fails.

Failure kinds, attributes of expressions, slices, and comparisons of two runs tell it. Pure functions on a DataFrame
with one row per expression, as `evaluation.ReferringResults.table` holds it (`TABLE` there says the columns). Nothing
here knows FiftyOne, masks or a model.
"""
