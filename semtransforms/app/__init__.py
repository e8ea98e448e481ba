"""``semtransforms app``: the journey of an owner as a page in the browser. It computes nothing of its own."""
