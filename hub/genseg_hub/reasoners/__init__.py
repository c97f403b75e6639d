"""VLMs that answer chats about images with text, in this process or on a server."""
