"""Results on an object store: what is finished is kept there, what is in flight is here."""
