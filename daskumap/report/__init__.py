"""What people see of a run: progress, text, pictures."""
