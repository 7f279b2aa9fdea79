"""Faces in photos: which nets find them, which face is meant, how it is cut out."""
