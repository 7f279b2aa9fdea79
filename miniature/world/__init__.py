"""The drawn world: people, their scenes, and how a picture is drawn of both."""
