"""A fit from the neighbours of a finished run: what is the same is copied, what is not is made anew."""
