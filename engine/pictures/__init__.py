"""Pictures on disk: what is known of one, what is written into its file, and what is read out of anybody's."""
