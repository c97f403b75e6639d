"""Where a model fails: failure kinds, attributes of expressions, slices, and comparison of two runs.

Pure functions on a DataFrame with one row per expression, as `evaluation.ReferringResults.table`
holds it (`TABLE` there says the columns). Nothing here knows FiftyOne, masks or a model.
"""
