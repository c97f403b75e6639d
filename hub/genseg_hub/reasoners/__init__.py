"""The reasoner: a VLM that answers chats about images with text, in this process or on a server."""
