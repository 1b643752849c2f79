"""What several stages compute in the same way."""
