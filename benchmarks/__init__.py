"""What the engine costs and saves, measured against plain diffusers in the same process and run."""
