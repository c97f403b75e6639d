"""The panels of the plugin."""
