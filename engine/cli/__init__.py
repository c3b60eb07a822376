"""Commands of `python -m engine`: each is a module with its flags and its work, and a row in `engine.__main__`."""
