"""What was measured, and how it is shown. Knows records only, never how they are made."""
