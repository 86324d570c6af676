"""How tokens are chosen: rows of logits in, verdicts out. Knows no model, no page and no text."""
