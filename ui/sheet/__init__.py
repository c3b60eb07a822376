"""The contact sheet: what its script asks, live and in a saved page, and the files made of it."""
