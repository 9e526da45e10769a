"""A region of a picture and nothing else: cut out, put back, its drift and tint undone."""
