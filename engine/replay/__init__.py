"""What is on disk made again: verified here, or written down so that others can make it."""
