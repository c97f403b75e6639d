"""Reasoners: VLMs that answer chats about images with text.

A reasoner is in this process or on a server.
"""
