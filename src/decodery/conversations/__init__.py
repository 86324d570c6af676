"""Makes requests of conversations: prompts, formats of replies, grammars of calls."""
