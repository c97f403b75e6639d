"""The operators of the plugin, one module each."""
