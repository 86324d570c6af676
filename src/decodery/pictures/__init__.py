"""How a text came about, drawn: a page, and a picture."""
