"""What follows a failed attempt."""
