"""A checkpoint folder on its way to the Hub: the model card and the push."""
