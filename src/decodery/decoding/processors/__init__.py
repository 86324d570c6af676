"""Changes rows of logits before a token is chosen: penalties, bans, truncations and their order."""
