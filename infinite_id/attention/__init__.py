"""The attention maths of Infinite-ID, as pure tensor functions."""
