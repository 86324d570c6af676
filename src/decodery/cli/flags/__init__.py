"""The flags, and the parameters made of them."""
