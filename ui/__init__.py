"""The page: gradio and Pillow; never torch. It reads widgets into a Recipe and folds a job's events into what is shown."""
