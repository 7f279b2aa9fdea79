"""The drawn world: people, the scenes they are put in, and how the two become a picture."""
