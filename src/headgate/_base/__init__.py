"""Code that several ideas share; nothing in it is hot."""
