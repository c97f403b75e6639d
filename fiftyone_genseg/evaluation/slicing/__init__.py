"""Find where a model fails: failure kinds, attributes, slices, compared runs.

The functions are pure. They read a DataFrame with one row per expression, as `evaluation.ReferringResults.table` holds
it (`TABLE` there names the columns). Nothing here knows FiftyOne, masks or a model.
"""
