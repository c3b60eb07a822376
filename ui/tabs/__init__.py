"""The tabs and their widgets: what a person sets, presses and sees beside the pictures."""
