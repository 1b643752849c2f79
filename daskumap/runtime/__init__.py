"""What a task may touch, and how it says how far it is."""
