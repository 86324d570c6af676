"""From token ids to text, piece by piece, and where it stops."""
